//! How a task takes the lock, and so what else may take it.

/// A form of lock and unlock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    Nested,
    Try,
    Irq,
    TryIrq,
    IrqSave,
    TryIrqSave,
    Bh,
    TryBh,
    /// A reader-writer lock, of which handlers keep away.
    ReadWrite,
    TryReadWrite,
    /// Tasks read with interrupts on, and write with interrupts off; handlers read.
    ReadWriteIrq,
    ReadWriteIrqSave,
    ReadWriteBh,
}

/// Who takes the lock besides tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rival {
    Nobody,
    Softirqs,
    Hardirqs,
}

impl Form {
    pub(super) const ALL: [Self; 14] = [
        Self::Plain,
        Self::Nested,
        Self::Try,
        Self::Irq,
        Self::TryIrq,
        Self::IrqSave,
        Self::TryIrqSave,
        Self::Bh,
        Self::TryBh,
        Self::ReadWrite,
        Self::TryReadWrite,
        Self::ReadWriteIrq,
        Self::ReadWriteIrqSave,
        Self::ReadWriteBh,
    ];

    /// Linux's name, without `spin_`; those of a reader-writer lock for both sides.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "lock",
            Self::Nested => "lock_nested",
            Self::Try => "trylock",
            Self::Irq => "lock_irq",
            Self::TryIrq => "trylock_irq",
            Self::IrqSave => "lock_irqsave",
            Self::TryIrqSave => "trylock_irqsave",
            Self::Bh => "lock_bh",
            Self::TryBh => "trylock_bh",
            Self::ReadWrite => "read_lock, write_lock",
            Self::TryReadWrite => "read_trylock, write_trylock",
            Self::ReadWriteIrq => "read_lock, write_lock_irq",
            Self::ReadWriteIrqSave => "read_lock_irqsave, write_lock_irqsave",
            Self::ReadWriteBh => "read_lock_bh, write_lock_bh",
        }
    }

    pub(super) const fn rival(self) -> Rival {
        match self {
            Self::Plain | Self::Nested | Self::Try | Self::ReadWrite | Self::TryReadWrite => Rival::Nobody,
            Self::Bh | Self::TryBh | Self::ReadWriteBh => Rival::Softirqs,
            Self::Irq
            | Self::TryIrq
            | Self::IrqSave
            | Self::TryIrqSave
            | Self::ReadWriteIrq
            | Self::ReadWriteIrqSave => Rival::Hardirqs,
        }
    }
}
