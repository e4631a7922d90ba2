//! A journal and a snapshot of version 1, under the logic of version 2.

use lockstep_engine::prelude::*;

use crate::recovery::wait_for;

mod v1 {
    use lockstep_engine::prelude::*;

    bodies! { pub(crate) Pay, kind 1, version 1: { account: u32, dollars: u32 } }
    kinds! { pub(crate) enum PayIn: "test.pay" version 1 { Pay } }

    #[derive(Default)]
    pub(crate) struct Till {
        dollars: u64,
    }
    snapshot!(Till { dollars });
    impl Logic for Till {
        type In = PayIn<'static>;
        type Out = PayIn<'static>;
        fn apply(
            &mut self,
            PayIn::Pay(pay): PayIn<'_>,
            _: &Context,
            _: &mut Outputs<'_, Self::Out>,
        ) {
            self.dollars += u64::from(pay.dollars);
        }
    }
}

mod v2 {
    use lockstep_engine::prelude::*;

    use super::v1;

    bodies! { pub(crate) Pay, kind 1, version 2: { account: u64, cents: i64 } }
    kinds! { pub(crate) enum PayIn: "test.pay" version 2 { Pay } }

    #[derive(Default)]
    pub(crate) struct Till {
        pub(crate) cents: i64,
    }
    snapshot!(Till, version 2 { cents } from { 1 => Till::of_dollars });
    impl Till {
        fn of_dollars(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
            Ok(Till {
                cents: u64::load(from)? as i64 * 100,
            })
        }
    }
    impl Logic for Till {
        type In = PayIn<'static>;
        type Out = PayIn<'static>;
        fn apply(
            &mut self,
            PayIn::Pay(pay): PayIn<'_>,
            _: &Context,
            _: &mut Outputs<'_, Self::Out>,
        ) {
            self.cents += pay.cents;
        }
        fn upcasters() -> Upcasters<Event64> {
            Upcasters::new().step(|old: &v1::Pay| Pay {
                account: old.account.into(),
                cents: i64::from(old.dollars) * 100,
            })
        }
    }
}

fn open<L: Logic + Default>(directory: &std::path::Path) -> lockstep_engine::Builder<L> {
    Engine::<L>::open(directory)
        .allow_volatile(true)
        .segment_bytes(1 << 20)
        .beacon_every(0)
}

#[test]
fn d38_events_and_state_of_version_1_run_under_version_2() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open::<v1::Till>(directory.path()).start().unwrap();
    let mut producer = engine.producer();
    for dollars in 1..=10 {
        producer
            .publish(|pay: &mut v1::Pay| pay.dollars = dollars)
            .unwrap()
            .wait()
            .unwrap();
    }
    engine.close().unwrap();

    let engine = open::<v2::Till>(directory.path()).start().unwrap();
    assert_eq!(engine.read(|till| till.cents).unwrap().1, 5_500);
    let mut producer = engine.producer();
    producer
        .publish(|pay: &mut v2::Pay| pay.cents = 7)
        .unwrap()
        .wait()
        .unwrap();
    engine.close().unwrap();
    let engine = open::<v2::Till>(directory.path()).start().unwrap();
    assert_eq!(engine.read(|till| till.cents).unwrap().1, 5_507);
    engine.close().unwrap();

    // Back to version 1: the log has what it does not know, and it says so.
    let error = open::<v1::Till>(directory.path())
        .start()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("version 2") && error.contains("test.pay"),
        "{error}"
    );
}

#[test]
fn a_snapshot_of_version_1_is_migrated() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open::<v1::Till>(directory.path()).start().unwrap();
    let mut producer = engine.producer();
    producer
        .publish(|pay: &mut v1::Pay| pay.dollars = 3)
        .unwrap()
        .wait()
        .unwrap();
    engine.snapshot_now();
    wait_for(|| engine.newest_snapshot().0 > 0);
    engine.close().unwrap();
    let engine = open::<v2::Till>(directory.path()).start().unwrap();
    assert_eq!(engine.read(|till| till.cents).unwrap().1, 300);
    engine.close().unwrap();
}
