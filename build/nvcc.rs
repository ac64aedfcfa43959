//! nvcc: its version, what it is asked to make of a file, and what it says.

use std::collections::BTreeMap;

/// The release of a toolkit, for example 13.0 with the full version 13.0.88.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub full: String,
}

/// The oldest release that knows everything the kernels use (`__grid_constant__` of large structs, sm_90a).
pub const OLDEST: (u32, u32) = (12, 3);

/// Architectures that machine code is made for: Turing, Ampere (A100; GeForce 30), Ada, Hopper.
pub const ARCHITECTURES: [u32; 5] = [75, 80, 86, 89, 90];

/// The first architecture with the instructions that the kernels use.
pub const OLDEST_ARCHITECTURE: u32 = 75;

/// What is asked of every kernel file besides the architectures.
///
/// There is no fast-math flag: which operations may be fused or approximated is written in the kernels. Line tables let
/// profilers show source lines and cost no instruction; with them, fatbinary compresses code only when it is told to.
pub const FLAGS: [&str; 8] =
    ["-fatbin", "-std=c++17", "-O3", "-lineinfo", "-Xptxas", "-v,-warn-spills", "-Xfatbin", "-compress-all"];

/// Reads what `nvcc --version` prints.
pub fn version(text: &str) -> Option<Version> {
    let release = text.split_once("release ")?.1;
    let (release, rest) = release.split_once(',')?;
    let (major, minor) = release.split_once('.')?;
    let full = rest.trim_start().strip_prefix('V')?.split_whitespace().next()?.to_string();
    Some(Version { major: major.parse().ok()?, minor: minor.parse().ok()?, full })
}

/// Reads what `nvcc --list-gpu-code` prints: the architectures it makes machine code for.
pub fn offered(text: &str) -> Vec<u32> {
    let mut offered: Vec<u32> = text.lines().filter_map(|line| line.trim().strip_prefix("sm_")?.parse().ok()).collect();
    offered.sort_unstable();
    offered
}

/// The architectures to compile for: those asked for in ELBO_CUDA_ARCH, or all of [`ARCHITECTURES`] that nvcc offers.
pub fn architectures(asked: Option<&str>, offered: &[u32]) -> Result<Vec<u32>, String> {
    let Some(asked) = asked else {
        return Ok(ARCHITECTURES.into_iter().filter(|arch| offered.contains(arch)).collect());
    };
    let list = |all: &[u32]| all.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let mut chosen = Vec::new();
    for item in asked.split(',') {
        let wrong = |what: &str| {
            Err(format!(
                "ELBO_CUDA_ARCH=\"{asked}\": \"{item}\" {what}; expected a list such as {}",
                list(&ARCHITECTURES)
            ))
        };
        match item.trim().parse::<u32>() {
            Ok(arch) if arch < OLDEST_ARCHITECTURE => {
                return wrong("is older than 75, the first that the kernels run on");
            }
            Ok(arch) if !offered.contains(&arch) => {
                return wrong(&format!("is not offered by this nvcc, which has {}", list(offered)));
            }
            Ok(arch) => chosen.push(arch),
            Err(_) => return wrong("is no number"),
        }
    }
    chosen.sort_unstable();
    chosen.dedup();
    Ok(chosen)
}

/// The architectures that PTX is kept for besides the machine code. The driver compiles it when no machine code fits:
/// that of the newest for GPUs newer than this list, that of 80 for boards of the Ampere family outside of it.
pub fn ptx_architectures(architectures: &[u32]) -> Vec<u32> {
    let newest = architectures.last();
    architectures.iter().filter(|arch| **arch == 80 || Some(*arch) == newest).copied().collect()
}

/// The `-gencode` arguments for the file `stem`, or none if it is of no use on these architectures.
///
/// Files called `*_sm90a` use instructions that exist on Hopper alone, so they get its machine code and no PTX. (The
/// short form `-arch=sm_90a` would compile for plain sm_90 too, which refuses them.)
pub fn gencode(stem: &str, architectures: &[u32]) -> Vec<String> {
    if stem.ends_with("_sm90a") {
        let hopper = architectures.contains(&90);
        return if hopper { vec!["-gencode=arch=compute_90a,code=sm_90a".into()] } else { Vec::new() };
    }
    let ptx = ptx_architectures(architectures);
    let one = |arch: &u32| match ptx.contains(arch) {
        true => format!("-gencode=arch=compute_{arch},code=[sm_{arch},compute_{arch}]"),
        false => format!("-gencode=arch=compute_{arch},code=sm_{arch}"),
    };
    architectures.iter().map(one).collect()
}

/// What ptxas says of one kernel on one architecture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Use {
    pub registers: u32,
    pub stack: u32,
    pub spill_stores: u32,
    pub spill_loads: u32,
}

/// Reads the output of `ptxas -v`: what each (kernel, architecture) needs.
///
/// A device function that was not inlined has numbers of its own; its stack and spills count for the kernel before it.
pub fn uses(output: &str) -> BTreeMap<(String, String), Use> {
    let mut uses: BTreeMap<(String, String), Use> = BTreeMap::new();
    let mut kernel = None;
    for line in output.lines() {
        if let Some(rest) = line.split_once("Compiling entry function '").map(|(_, rest)| rest) {
            kernel = rest.split_once("' for '").map(|(name, arch)| (name.to_string(), arch.replace('\'', "")));
        }
        let Some(kernel) = &kernel else { continue };
        let of = uses.entry(kernel.clone()).or_default();
        let before = |what: &str| -> Option<u32> { line.split_once(what)?.0.rsplit([' ', ',']).next()?.parse().ok() };
        of.stack += before(" bytes stack frame").unwrap_or(0);
        of.spill_stores += before(" bytes spill stores").unwrap_or(0);
        of.spill_loads += before(" bytes spill loads").unwrap_or(0);
        if line.contains(": Used ") {
            of.registers = before(" registers").unwrap_or(0);
        }
    }
    uses
}

/// What a failure of nvcc means when it is the host compiler's: nvcc runs it to preprocess every file.
pub fn host_compiler_problem(output: &str) -> Option<String> {
    let has = |texts: &[&str]| texts.iter().any(|text| output.contains(text));
    let remedy = "set NVCC_CCBIN to one that it accepts (for example NVCC_CCBIN=g++-13)";
    if has(&["unsupported GNU version", "unsupported clang version", "unsupported Microsoft Visual Studio version"]) {
        return Some(format!(
            "the C++ compiler is newer than this nvcc accepts; {remedy}, or try it all the same with \
             ELBO_ALLOW_UNSUPPORTED_COMPILER=1, or build without CUDA with ELBO_CUDA=off"
        ));
    }
    if has(&["Cannot find compiler", "Failed to preprocess host compiler properties", "cannot execute"])
        || output.lines().any(|line| line.contains("sh:") && line.contains("not found"))
    {
        return Some(format!(
            "nvcc needs a C++ compiler and cannot run one; install g++ (on Windows, run from a Visual Studio \
             developer prompt), or {remedy}, or build without CUDA with ELBO_CUDA=off"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let text = "nvcc: NVIDIA (R) Cuda compiler driver\nCopyright (c) 2005-2025 NVIDIA Corporation\n\
                    Cuda compilation tools, release 13.0, V13.0.88\nBuild cuda_13.0.r13.0/compiler.36424714_0\n";
        assert_eq!(version(text), Some(Version { major: 13, minor: 0, full: "13.0.88".into() }));
        assert_eq!(version("sh: nvcc: no such thing"), None);
        assert_eq!(offered("sm_90\nsm_75\nsm_100\n"), [75, 90, 100]);
    }

    #[test]
    fn architectures_are_checked_against_what_nvcc_offers() {
        let offered = [75, 80, 86, 87, 89, 90, 100];
        assert_eq!(architectures(None, &offered).unwrap(), ARCHITECTURES);
        assert_eq!(architectures(None, &offered[1..]).unwrap(), ARCHITECTURES[1..]);
        assert_eq!(architectures(Some("90, 80,90"), &offered).unwrap(), [80, 90]);
        for (asked, part) in [
            ("", "is no number"),
            ("80,", "is no number"),
            ("sm_80", "\"sm_80\" is no number"),
            ("90a", "is no number"),
            ("70", "older than 75"),
            ("80,120", "\"120\" is not offered by this nvcc, which has 75,80,86,87,89,90,100"),
        ] {
            let error = architectures(Some(asked), &offered).unwrap_err();
            assert!(error.contains(part) && error.contains("75,80,86,89,90"), "{error}");
        }
    }

    #[test]
    fn files_get_machine_code_for_all_and_ptx_for_two() {
        assert_eq!(
            gencode("reduce", &[75, 80, 90]),
            [
                "-gencode=arch=compute_75,code=sm_75",
                "-gencode=arch=compute_80,code=[sm_80,compute_80]",
                "-gencode=arch=compute_90,code=[sm_90,compute_90]"
            ]
        );
        assert_eq!(gencode("gemm_sm90a", &[80, 90]), ["-gencode=arch=compute_90a,code=sm_90a"]);
        assert!(gencode("gemm_sm90a", &[80]).is_empty());
        assert_eq!(ptx_architectures(&[75]), [75]);
    }

    #[test]
    fn the_report_of_ptxas_is_read_kernel_by_kernel() {
        let output = "\
ptxas warning : Registers are spilled to local memory in function 'scalars', 12 bytes spill stores, 16 bytes spill loads
ptxas info    : 24 bytes gmem, 8 bytes cmem[4]
ptxas info    : Compiling entry function 'scalars' for 'sm_75'
ptxas info    : Function properties for scalars
    16 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 16 bytes cumulative stack size, 4376 bytes cmem[0]
ptxas info    : Compile time = 375.207 ms
ptxas info    : Function properties for _Z1ff
    32 bytes stack frame, 4 bytes spill stores, 0 bytes spill loads
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'scalars' for 'sm_90a'
ptxas info    : Function properties for scalars
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers
";
        let uses = uses(output);
        let of = |arch: &str| uses[&("scalars".to_string(), arch.to_string())].clone();
        assert_eq!(uses.len(), 2);
        assert_eq!(of("sm_75"), Use { registers: 64, stack: 48, spill_stores: 16, spill_loads: 16 });
        assert_eq!(of("sm_90a"), Use { registers: 32, ..Use::default() });
    }

    #[test]
    fn trouble_with_the_host_compiler_is_recognised() {
        let newer = "host_config.h:137:2: error: #error -- unsupported GNU version! gcc versions later than 15 are not";
        let text = host_compiler_problem(newer).unwrap();
        assert!(text.contains("NVCC_CCBIN") && text.contains("ELBO_ALLOW_UNSUPPORTED_COMPILER=1"), "{text}");
        for missing in ["sh: 1: gcc: not found", "nvcc fatal   : Cannot find compiler 'cl.exe' in PATH"] {
            assert!(host_compiler_problem(missing).unwrap().contains("install g++"));
        }
        assert_eq!(host_compiler_problem("gemm.cu(17): error: expected a \";\""), None);
    }
}
