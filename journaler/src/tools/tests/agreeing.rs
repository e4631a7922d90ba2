//! Verification and opening hold the same.

use super::*;

/// `V3`: verification and opening must not disagree about the end of the log.
pub(super) fn must_agree(storage: &Simulated, context: &str) {
    let report = verified(storage);
    let found = damage(&report);
    match opened(storage) {
        Ok(recovered) => {
            assert!(
                found.is_empty(),
                "{context}: opened, and verify says {found:?}"
            );
            let torn = report
                .findings
                .iter()
                .find(|one| one.severity == Severity::Torn);
            match (recovered.verdict, torn) {
                (crate::Verdict::TornTail(torn), Some(finding)) => {
                    assert_eq!(Some(torn.place.offset), finding.offset, "{context}");
                    assert_eq!(torn.place.segment.file_name(), finding.file, "{context}");
                }
                (crate::Verdict::TornTail(torn), None) => panic!("{context}: not seen: {torn:?}"),
                (_, Some(finding)) => panic!("{context}: opening does not see {finding:?}"),
                (_, None) => assert_eq!(recovered.reached.position, report.to, "{context}"),
            }
        }
        Err(error) => assert!(
            !found.is_empty(),
            "{context}: refused, and verify is content: {error}"
        ),
    }
}

#[test]
fn v3_opening_and_verification_agree_on_every_flip_in_the_last_segment() {
    let whole = made(Plan {
        groups: 3,
        ..Plan::default()
    });
    let end = *whole.groups[2].last().unwrap();
    must_agree(&whole.storage, "whole");
    let data = (8192..end + 200).step_by(9);
    for at in (0..300)
        .step_by(7)
        .chain((4096..4900).step_by(13))
        .chain(data)
    {
        whole.storage.rot(&name(2), at, 1 << (at % 8)).unwrap();
        must_agree(&whole.storage, &format!("byte {at}"));
        whole.storage.rot(&name(2), at, 1 << (at % 8)).unwrap();
    }
    for (at, length) in [
        (0, 4096),
        (0, 8192),
        (0, 20_000),
        (9_000, 100),
        (end, 64),
        (end + 64, 9000),
        (end, 80_000),
    ] {
        for fill in [0, 0xa5] {
            let fork = whole.storage.fork();
            fork.overwrite(&name(2), at, &vec![fill; length]).unwrap();
            must_agree(&fork, &format!("{length} bytes of {fill:x} at {at}"));
        }
    }
}

#[test]
fn v3_opening_and_verification_agree_after_every_crash() {
    for seed in 0..120 {
        let disk = Simulated::new(seed);
        let mut options = crate::Options::new(&made::ORDERS).with_segment_bytes(64 * 1024);
        options.background = crate::Background::Stepped;
        disk.cut_power_after(20 + seed % 300);
        // Ends with the power.
        let _ = (|| -> Result<(), Box<dyn std::error::Error>> {
            let (mut journal, _) = crate::Journal::open(disk.clone(), &options)?;
            let mut cutter = journal.cutter();
            for position in 0.. {
                let events: Vec<made::Order> = (0..1 + position % 40).map(made::order).collect();
                let body: [&[u8]; 2] = [bytemuck::cast_slice(&events), &[]];
                let header = cutter.cut(body, position);
                journal.write(&[crate::Frame {
                    header: &header,
                    body,
                }])?;
                journal.sync()?;
                for _ in 0..8 {
                    journal.step_background();
                }
            }
            Ok(())
        })();
        assert!(disk.is_off());
        disk.crash();
        if Catalog::read(&disk).unwrap().segments.is_empty() {
            continue;
        }
        let report = verified(&disk);
        let error = opened_with(&disk, &options);
        assert_eq!(
            damage(&report).is_empty(),
            error.is_none(),
            "seed {seed}: {:?} {error:?}",
            report.findings
        );
        assert!(error.is_none(), "a crash is never corruption");
    }
}
