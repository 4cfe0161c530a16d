#![doc = include_str!("../README.md")]

mod device;
#[cfg(feature = "host")]
pub mod kernel;

pub use device::find;
