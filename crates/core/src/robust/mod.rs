//! The robust lock.
mod ops;
mod seat;
mod word;

pub use ops::RobustOps;
pub use seat::Seat;
pub use word::{Condition, Name, Ownership};
