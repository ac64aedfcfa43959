//! How a matrix lies in the device's memory and which tiles of it are copied at a time: what Hopper's copy unit is given
//! (kernels/hopper.cuh, `tma_load_2d`).

use cudarc::driver::sys;

use super::driver::{Address, Driver, Pod};
use crate::engine::error::Result;

/// The driver's `CUtensorMap`: 128 bytes that it alone understands.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(super) struct TensorMap([u64; 16]);

// SAFETY: numbers without padding.
unsafe impl Pod for TensorMap {}

/// The map that goes to the kernel is the one that the driver writes.
const _: () = assert!(
    size_of::<TensorMap>() == size_of::<sys::CUtensorMap>()
        && align_of::<TensorMap>() >= align_of::<sys::CUtensorMap>()
);

impl Driver {
    /// The map of a matrix [rows, columns] of bf16 whose rows are `pitch` elements apart, copied in boxes of [rows, columns]
    /// with the 128-byte swizzle. A box beyond the matrix is filled with zeros.
    ///
    /// # Errors
    /// [`Error::Device`](crate::engine::error::Error::Device) when the driver refuses: the matrix and its rows must begin at
    /// multiples of 16 bytes, and a box's row must have at most 128 bytes.
    pub(super) fn tensor_map(
        &self,
        matrix: Address,
        [rows, columns]: [usize; 2],
        pitch: usize,
        tile: [u32; 2],
    ) -> Result<TensorMap> {
        self.enter()?;
        let mut map = TensorMap([0; 16]);
        // The driver counts dimensions from the innermost.
        let (size, stride, tile) = ([columns as u64, rows as u64], [2 * pitch as u64], [tile[1], tile[0]]);
        // SAFETY: the map has the type's size and alignment, by the assertion above; the arrays have as many numbers as two
        // dimensions need, and the driver copies them.
        unsafe {
            sys::cuTensorMapEncodeTiled(
                (&raw mut map).cast(),
                sys::CUtensorMapDataType_enum::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                2,
                matrix as *mut std::ffi::c_void,
                size.as_ptr(),
                stride.as_ptr(),
                tile.as_ptr(),
                [1, 1].as_ptr(),
                sys::CUtensorMapInterleave_enum::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle_enum::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion_enum::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                sys::CUtensorMapFloatOOBfill_enum::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        }
        .result()
        .map_err(self.failed("cuTensorMapEncodeTiled"))?;
        Ok(map)
    }
}
