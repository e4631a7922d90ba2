//! Stuff: instruments, their ticks, lots, fees, collars and states.

use bytemuck::{Pod, Zeroable};

use crate::event::{AddInstrument, InstrumentState};
use crate::price::{PRICE_MAX, Price, Quantity};

/// One instrument.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub(crate) struct Instrument {
    pub(crate) symbol: [u8; 8],
    pub(crate) tick: Price,
    pub(crate) lot: Quantity,
    pub(crate) low: Price,
    pub(crate) high: Price,
    pub(crate) maker_fee_ppm: u32,
    pub(crate) taker_fee_ppm: u32,
    /// 0: there is none of this number.
    pub(crate) state: u8,
    pub(crate) spare: [u8; 7],
}

const VACANT: Instrument = Instrument {
    symbol: [0; 8],
    tick: 1,
    lot: 1,
    low: 1,
    high: PRICE_MAX,
    maker_fee_ppm: 0,
    taker_fee_ppm: 0,
    state: 0,
    spare: [0; 7],
};

impl Instrument {
    #[inline]
    pub(crate) const fn is_open(&self) -> bool {
        self.state == InstrumentState::Open as u8
    }

    /// What is reserved with: the order may come to trade as maker or as taker.
    #[inline]
    pub(crate) fn fee_ppm_max(&self) -> u32 {
        self.maker_fee_ppm.max(self.taker_fee_ppm)
    }

    #[inline]
    pub(crate) const fn is_on_tick(&self, price: Price) -> bool {
        self.tick == 1 || price % self.tick == 0
    }

    #[inline]
    pub(crate) const fn is_whole_lots(&self, quantity: Quantity) -> bool {
        self.lot == 1 || quantity.is_multiple_of(self.lot)
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Stuff {
    instruments: Vec<Instrument>,
}

impl Stuff {
    pub(crate) fn new(instruments: u32) -> Self {
        Self {
            instruments: vec![VACANT; instruments as usize],
        }
    }

    pub(crate) fn all(&self) -> &[Instrument] {
        &self.instruments
    }

    #[inline]
    pub(crate) fn get(&self, number: u32) -> Option<&Instrument> {
        self.instruments
            .get(number as usize)
            .filter(|instrument| instrument.state != 0)
    }

    /// An instrument that is known to be there.
    #[inline]
    pub(crate) fn known(&self, number: u32) -> &Instrument {
        &self.instruments[number as usize]
    }

    pub(crate) fn add(&mut self, added: &AddInstrument) {
        self.instruments[added.instrument as usize] = Instrument {
            symbol: added.symbol,
            tick: added.tick,
            lot: added.lot,
            maker_fee_ppm: added.maker_fee_ppm,
            taker_fee_ppm: added.taker_fee_ppm,
            state: InstrumentState::Closed as u8,
            ..VACANT
        };
    }

    pub(crate) fn set_state(&mut self, number: u32, state: InstrumentState) {
        self.instruments[number as usize].state = state as u8;
    }

    pub(crate) fn set_collar(&mut self, number: u32, low: Price, high: Price) {
        let instrument = &mut self.instruments[number as usize];
        (instrument.low, instrument.high) = (low, high);
    }

    /// Puts an instrument back as it was in a snapshot.
    pub(crate) fn restore(&mut self, number: u32, instrument: Instrument) {
        self.instruments[number as usize] = instrument;
    }
}
