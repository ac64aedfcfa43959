//! The kernels of `amx.rs` on processors without AMX: a handler of SIGILL executes the tile instructions that it is
//! sent.
//!
//! It decodes the machine code as the manual says, so what it shows is which registers, addresses and strides the
//! kernels name, in which order and how often. What a real unit makes of them is for `probe.rs` to find out.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::sync::Once;

use super::cases::{HardMatrices, HardProduct, noise_bands};
use super::pack::widened;
use super::twin;
use super::{Additions, Bands, PartProducts, STEP, SUMS, TILE, TileSums, TileUnit, Tiles, amx, probe, unit};
use crate::engine::device::Precision;
use crate::engine::isa::Isa;

/// Bytes in a row of a tile.
const ROW: usize = 64;

/// A thread's tile registers.
struct TileRegisters {
    configured: bool,
    tiles: [[[u8; ROW]; TILE]; 8],
}

thread_local! {
    static REGISTERS: UnsafeCell<TileRegisters> =
        const { UnsafeCell::new(TileRegisters { configured: false, tiles: [[[0; ROW]; TILE]; 8] }) };
}

/// An instruction with a VEX prefix of three bytes.
struct InstructionDecoder<'a> {
    code: *const u8,
    registers: &'a [i64; 23],
}

/// [base + index·scale + displacement]
struct MemoryOperand {
    base: usize,
    stride: usize,
    /// Bytes of the instruction up to here.
    end: usize,
}

impl InstructionDecoder<'_> {
    fn byte(&self, i: usize) -> u8 {
        // SAFETY: the processor has read these bytes as an instruction.
        unsafe { *self.code.add(i) }
    }

    /// A general register by its number in instructions.
    fn register(&self, number: u8) -> usize {
        const NAMES: [i32; 16] = [
            libc::REG_RAX,
            libc::REG_RCX,
            libc::REG_RDX,
            libc::REG_RBX,
            libc::REG_RSP,
            libc::REG_RBP,
            libc::REG_RSI,
            libc::REG_RDI,
            libc::REG_R8,
            libc::REG_R9,
            libc::REG_R10,
            libc::REG_R11,
            libc::REG_R12,
            libc::REG_R13,
            libc::REG_R14,
            libc::REG_R15,
        ];
        self.registers[NAMES[usize::from(number)] as usize] as usize
    }

    /// The operand in memory that begins with the byte ModRM, number 4; none that is relative to RIP.
    fn address(&self) -> Option<MemoryOperand> {
        let (extended, modrm, mut end) = (!self.byte(1), self.byte(4), 5);
        let (base_high, index_high) = ((extended >> 5 & 1) << 3, (extended >> 6 & 1) << 3);
        let (mut number, mut stride) = (modrm & 7, 0);
        if number == 4 {
            let sib = self.byte(5);
            end = 6;
            number = sib & 7;
            let index = sib >> 3 & 7 | index_high;
            // Number 4 is no index.
            stride = if index == 4 { 0 } else { self.register(index) << (sib >> 6) };
        }
        if modrm >> 6 == 0 && number == 5 {
            return None;
        }
        let displacement = match modrm >> 6 {
            0 => 0,
            1 => isize::from(self.byte(end) as i8),
            _ => i32::from_le_bytes([0, 1, 2, 3].map(|i| self.byte(end + i))) as isize,
        };
        end += [0, 1, 4][usize::from(modrm >> 6)];
        Some(MemoryOperand { base: self.register(number | base_high).wrapping_add_signed(displacement), stride, end })
    }

    /// Executes it, if it is a tile instruction, and says how long it is.
    fn execute(&self, to: &mut TileRegisters) -> Option<usize> {
        let (prefix, map, fields, opcode, modrm) =
            (self.byte(0), self.byte(1) & 31, self.byte(2), self.byte(3), self.byte(4));
        // W = 0 and L = 0; NP, 66, F3, F2 are 0, 1, 2, 3.
        if prefix != 0xc4 || map != 2 || fields & 0x84 != 0 {
            return None;
        }
        let (in_memory, reg, rm) = (modrm < 0xc0, usize::from(modrm >> 3 & 7), usize::from(modrm & 7));
        match (fields & 3, opcode, in_memory) {
            (0, 0x49, true) if reg == 0 => {
                let address = self.address()?;
                // SAFETY: LDTILECFG reads 64 bytes.
                let bytes = unsafe { std::slice::from_raw_parts(address.base as *const u8, 64) };
                let full =
                    |tile: usize| bytes[16 + 2 * tile] == 64 && bytes[17 + 2 * tile] == 0 && bytes[48 + tile] == 16;
                let rest = bytes[1..16].iter().chain(&bytes[32..48]).chain(&bytes[56..]);
                if bytes[0] != 1 || !(0..8).all(full) || rest.into_iter().any(|&b| b != 0) {
                    return None;
                }
                *to = TileRegisters { configured: true, tiles: [[[0; ROW]; TILE]; 8] };
                Some(address.end)
            }
            (0, 0x49, false) if modrm == 0xc0 => {
                *to = TileRegisters { configured: false, tiles: [[[0; ROW]; TILE]; 8] };
                Some(5)
            }
            _ if !to.configured => None,
            (3, 0x49, false) => {
                to.tiles[reg] = [[0; ROW]; TILE];
                Some(5)
            }
            (3 | 2, 0x4b, true) => {
                let address = self.address()?;
                for (i, row) in to.tiles[reg].iter_mut().enumerate() {
                    let at = (address.base + i * address.stride) as *mut [u8; ROW];
                    // SAFETY: the kernel says that it may read or write there.
                    unsafe { if fields & 3 == 3 { *row = at.read_unaligned() } else { at.write_unaligned(*row) } }
                }
                Some(address.end)
            }
            (2, 0x5c, false) => {
                let second = usize::from(!fields >> 3 & 7);
                let (a, b) = (to.tiles[rm], to.tiles[second]);
                to.tiles[reg].iter_mut().zip(&a).for_each(|(c, a)| tdpbf16ps(c, a, &b));
                Some(5)
            }
            _ => None,
        }
    }
}

/// A row of C, a row of A and all of B, as in the manual.
fn tdpbf16ps(c: &mut [u8; ROW], a: &[u8; ROW], b: &[[u8; ROW]; TILE]) {
    let zero_if_denormal = |x: f32| if x.is_subnormal() { 0.0_f32.copysign(x) } else { x };
    let bf16 = |row: &[u8; ROW], i: usize| zero_if_denormal(widened(u16::from_le_bytes([row[2 * i], row[2 * i + 1]])));
    let mut temp = [0.0_f32; STEP];
    for (k, b) in b.iter().enumerate() {
        for n in 0..TILE {
            for odd in 0..2 {
                let (x, y) = (bf16(a, 2 * k + odd), bf16(b, 2 * n + odd));
                temp[2 * n + odd] = zero_if_denormal(x.mul_add(y, temp[2 * n + odd]));
            }
        }
    }
    for (c, temp) in c.chunks_exact_mut(4).zip(temp.chunks_exact(2)) {
        let old = f32::from_le_bytes([c[0], c[1], c[2], c[3]]);
        c.copy_from_slice(&zero_if_denormal(old + zero_if_denormal(temp[0] + temp[1])).to_le_bytes());
    }
}

extern "C" fn on_illegal_instruction(signal: i32, _info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO this is what the system passes, and the thread's registers are nobody else's.
    unsafe {
        let general = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let at = general[libc::REG_RIP as usize];
        let decoder = InstructionDecoder { code: at as *const u8, registers: general };
        let length = REGISTERS.with(|registers| decoder.execute(&mut *registers.get()));
        match length {
            Some(length) => general[libc::REG_RIP as usize] = at + length as i64,
            // Executed again, it ends the process.
            None => {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}

/// Whether tile instructions can be executed, for tests that are about the kernels and not about the unit. Where there
/// is a unit, `tests::a_unit_has_the_bits_of_its_twin` asks more.
fn emulating() -> bool {
    if unit::present().is_ok() {
        println!("skipped: this processor has AMX, which is not emulated");
        return false;
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: a handler of the right type for a signal that nothing else in these tests handles.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_illegal_instruction as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            assert_eq!(libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut()), 0);
        }
    });
    true
}

fn on_kernels(terms: PartProducts, bands: &Bands<'_>, sums: &mut TileSums) {
    // SAFETY: emulated.
    unsafe {
        amx::configure();
        amx::accumulate(terms, bands, sums);
        amx::release();
    }
}

#[test]
fn the_kernels_walk_as_the_twin_does() {
    if !emulating() {
        return;
    }
    for (terms, least) in [(PartProducts::Large, 1), (PartProducts::TwoSmall, 2), (PartProducts::FiveSmall, 3)] {
        for parts in least..=3 {
            for steps in [0, 1, 2, 5] {
                let [a, b] = noise_bands(steps * parts);
                let bands = Bands { a: &a, b: &b, parts, steps };
                let (mut found, mut expected) = (TileSums([f32::NAN; SUMS]), TileSums([0.0; SUMS]));
                on_kernels(terms, &bands, &mut found);
                twin::accumulate(Additions::Chains, Isa::detect(), terms, &bands, &mut expected);
                assert_eq!(found.0.map(f32::to_bits), expected.0.map(f32::to_bits), "{terms:?}, {parts}, {steps}");
            }
        }
    }
}

#[test]
fn the_probe_recognises_what_is_emulated() {
    if emulating() {
        assert_eq!(probe::ask(on_kernels), probe::Finding::Adds(Additions::Chains));
    }
}

#[test]
fn products_have_the_bits_of_the_twin() {
    if !emulating() {
        return;
    }
    for precision in [Precision::F32, Precision::Bf16x3, Precision::Bf16] {
        for (m, n, k) in [(1, 1, 40), (17, 33, 100), (70, 100, 1100)] {
            for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
                let product = HardProduct::new(HardMatrices::Wide, m, n, k, ta, tb);
                let [amx, twin] = [TileUnit::Amx(Additions::Chains), TileUnit::Twin(Additions::Chains)]
                    .map(|unit| product.on(Tiles::on(unit, precision).unwrap()));
                assert_eq!(amx, twin, "{precision}, {m}×{n}×{k}, {ta}, {tb}");
            }
        }
    }
}
