//! Which tile unit there is, and whether it is to be used.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use std::sync::OnceLock;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use super::amx;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use super::probe::{Finding, ask};
use super::{Additions, Bands, EXACT_FROM, PartProducts, TileSums, twin};
use crate::engine::device::Precision;
use crate::engine::error::{Choice, Error, Result};
use crate::engine::isa::Isa;

/// What multiplies tiles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TileUnit {
    /// The processor's AMX unit, with the order of additions that was found in it. It must come from [`TileUnit::amx`].
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx(Additions),
    /// A unit in plain Rust, with the same bits: for tests, slowly.
    Twin(Additions),
}

/// What `ELBO_TILES` asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    Nothing,
    Off,
    Amx,
    Twin,
}

impl Asked {
    fn read() -> Result<Asked> {
        let Ok(name) = std::env::var("ELBO_TILES") else { return Ok(Asked::Nothing) };
        match name.to_lowercase().as_str() {
            "off" => Ok(Asked::Off),
            "amx" => Ok(Asked::Amx),
            "twin" => Ok(Asked::Twin),
            _ => Err(Error::argument("the variable ELBO_TILES", format!("\"{name}\""), "amx, twin or off")),
        }
    }
}

impl TileUnit {
    /// The processor's AMX unit. The first call asks the system for it and checks its arithmetic.
    ///
    /// # Errors
    /// Why there is none that can be used, in words.
    pub fn amx() -> std::result::Result<TileUnit, String> {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        {
            static FOUND: OnceLock<std::result::Result<TileUnit, String>> = OnceLock::new();
            FOUND.get_or_init(|| checked().map(TileUnit::Amx)).clone()
        }
        #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
        Err("tile units (AMX) are used on x86-64 under Linux alone".into())
    }

    /// The twin of this processor's AMX unit; without one, of what the manual says.
    pub fn twin() -> TileUnit {
        match TileUnit::amx() {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Ok(TileUnit::Amx(additions)) => TileUnit::Twin(additions),
            _ => TileUnit::Twin(Additions::Chains),
        }
    }

    /// The order of its additions.
    pub(super) fn additions(self) -> Additions {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            TileUnit::Amx(additions) => additions,
            TileUnit::Twin(additions) => additions,
        }
    }

    /// Prepares this thread for [`TileUnit::accumulate`].
    pub(super) fn configure(self) {
        match self {
            // SAFETY: the value says that there is such a unit.
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            TileUnit::Amx(_) => unsafe { amx::configure() },
            TileUnit::Twin(_) => {}
        }
    }

    /// Undoes [`TileUnit::configure`].
    pub(super) fn release(self) {
        match self {
            // SAFETY: as above.
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            TileUnit::Amx(_) => unsafe { amx::release() },
            TileUnit::Twin(_) => {}
        }
    }

    /// Adds all `terms` of all steps to the sums, which are zero; this thread is configured.
    pub(super) fn accumulate(self, isa: Isa, terms: PartProducts, bands: &Bands<'_>, sums: &mut TileSums) {
        match self {
            // SAFETY: as above.
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            TileUnit::Amx(_) => unsafe { amx::accumulate(terms, bands, sums) },
            TileUnit::Twin(additions) => twin::accumulate(additions, isa, terms, bands, sums),
        }
    }
}

impl std::fmt::Display for TileUnit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            TileUnit::Amx(_) => "amx",
            TileUnit::Twin(_) => "amx twin",
        })
    }
}

/// Products on tiles: by what, and how exactly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tiles {
    unit: TileUnit,
    precision: Precision,
}

impl Tiles {
    /// On the processor's unit; `ELBO_TILES=twin` takes its twin, on any processor, and `ELBO_TILES=off` none.
    ///
    /// # Errors
    /// [`Error::Device`] with the reason why there is no such unit; [`Error::Argument`] for TF32, which it does not
    /// have, and for a value of `ELBO_TILES` that is none.
    pub fn new(precision: Precision) -> Result<Tiles> {
        possible(precision)?;
        let unit = match Asked::read()? {
            Asked::Twin => Ok(TileUnit::twin()),
            Asked::Off => Err("the variable ELBO_TILES is off".into()),
            Asked::Amx | Asked::Nothing => TileUnit::amx(),
        };
        let device = || format!("precision {precision} on the CPU");
        let remedy = || Choice::F32.remedy("take a GPU, or ask for precision f32");
        let unit = unit.map_err(|reason| Error::Device { device: device(), reason, remedy: remedy() });
        Tiles::on(unit?, precision)
    }

    /// On a given unit.
    ///
    /// # Errors
    /// [`Error::Argument`] for TF32.
    pub fn on(unit: TileUnit, precision: Precision) -> Result<Tiles> {
        possible(precision).map(|()| Tiles { unit, precision })
    }

    /// Tiles for products in f32, if `ELBO_TILES=amx|twin` asks for them; what is not set, or `off`, asks for none.
    ///
    /// # Errors
    /// [`Error::Argument`] when it names a unit that is not there, or none at all.
    pub fn asked() -> Result<Option<Tiles>> {
        let unit = match Asked::read()? {
            Asked::Nothing | Asked::Off => return Ok(None),
            Asked::Twin => TileUnit::twin(),
            Asked::Amx => TileUnit::amx()
                .map_err(|why| Error::argument("the variable ELBO_TILES", "\"amx\"", format!("twin or off: {why}")))?,
        };
        Tiles::on(unit, Precision::F32).map(Some)
    }

    /// What multiplies.
    pub fn unit(self) -> TileUnit {
        self.unit
    }

    /// How exact the products are.
    pub fn precision(self) -> Precision {
        self.precision
    }

    /// Whether a product of this depth is at least as exact on these tiles as the precision says.
    pub(in super::super) fn serve(self, k: usize) -> bool {
        self.precision != Precision::F32 || (k >= EXACT_FROM && self.unit.additions() != Additions::Serial)
    }

    /// Parts of a factor.
    pub(super) fn parts(self) -> usize {
        match self.precision {
            Precision::F32 => 3,
            Precision::Bf16x3 => 2,
            Precision::Bf16 | Precision::Tf32 => 1,
        }
    }
}

/// Refuses what tile units do not compute.
fn possible(precision: Precision) -> Result<()> {
    match precision {
        Precision::Tf32 => {
            Err(Error::argument("precision", precision, "f32, bf16x3 or bf16, unless --device is a GPU"))
        }
        _ => Ok(()),
    }
}

impl std::fmt::Display for Tiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {}", self.unit, self.precision)
    }
}

/// What the AMX unit is, once the processor has one and the system permits it.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(super) fn finding() -> std::result::Result<Finding, String> {
    present()?;
    permit()?;
    // SAFETY: there is such a unit, and it is permitted.
    Ok(ask(|terms, bands, sums| unsafe {
        amx::configure();
        amx::accumulate(terms, bands, sums);
        amx::release();
    }))
}

/// The order of its additions.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn checked() -> std::result::Result<Additions, String> {
    match finding()? {
        Finding::Adds(additions) => Ok(additions),
        Finding::RoundsOtherwise => {
            Err("this processor's tile unit rounds otherwise than any that is known here".into())
        }
        Finding::Wrong => Err("this processor's tile unit gives wrong products; please report it".into()),
    }
}

/// Whether processor and system have AMX with bf16 (CPUID, XGETBV), in tiles as large as the kernels use.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(super) fn present() -> std::result::Result<(), String> {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const OSXSAVE: u32 = 1 << 27;
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    /// XTILECFG and XTILEDATA: the system saves and restores them.
    const SAVED: u32 = 1 << 17 | 1 << 18;
    /// Palette 1 of the manual: 8 tiles of 1024 bytes, 16 rows of 64.
    const PALETTE: [u32; 4] = [1024, 64, 8, 16];

    let leaves = __cpuid(0).eax;
    let features = if leaves >= 7 { __cpuid_count(7, 0).edx } else { 0 };
    if features & AMX_TILE == 0 {
        return Err("this processor has no tile unit (AMX)".into());
    }
    if features & AMX_BF16 == 0 {
        return Err("this processor's tile unit has no bf16 (AMX-BF16)".into());
    }
    if __cpuid(1).ecx & OSXSAVE == 0 || enabled_states() & SAVED != SAVED {
        return Err("the system does not save tile registers (AMX)".into());
    }
    let palette = if leaves >= 0x1d { __cpuid_count(0x1d, 1) } else { __cpuid(0) };
    let found = [palette.eax >> 16, palette.ebx & 0xffff, palette.ebx >> 16, palette.ecx & 0xffff];
    match found[0] >= PALETTE[0] && found[1..] == PALETTE[1..] {
        true => Ok(()),
        false => Err(format!("this processor's tiles have other sizes than the kernels: {found:?}, not {PALETTE:?}")),
    }
}

/// The low half of XCR0: states that the system has enabled. The processor must have OSXSAVE.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn enabled_states() -> u32 {
    let low: u32;
    // SAFETY: XCR0 exists wherever OSXSAVE is set, which the caller saw.
    unsafe { std::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _, options(nomem, nostack)) };
    low
}

/// Asks Linux for the tile registers, for all threads of this process: `arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)`.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn permit() -> std::result::Result<(), String> {
    const ARCH_PRCTL: isize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XTILEDATA: usize = 18;
    let answer: isize;
    // SAFETY: a system call that touches no memory of this process; the kernel clobbers rcx and r11.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => answer,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    match answer {
        0 => Ok(()),
        _ => Err(format!("the system refuses the tile registers (arch_prctl: error {})", -answer)),
    }
}
