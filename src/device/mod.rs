//! Executors: plans bound to memory.

pub mod cpu;
mod memory;
mod team;
