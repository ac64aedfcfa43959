//! Several models on one device at the same time.

#[cfg(feature = "cuda")]
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "cuda")]
use super::cuda;
use super::{Device, Executor};
use crate::engine::error::Result;

/// A device for several models, each of which a thread of its own trains.
///
/// On a GPU, models of one kind that run their steps at about the same time share launches: the time of a small step is that of
/// its launches, and most of the GPU is idle meanwhile. Models of different kinds (other shapes, batches, precision) run one after
/// the other. On the CPU it is as if each thread had opened the device. Every model has the bits that it has alone,
/// whatever the others do.
///
/// ```
/// use elbo::engine::device::{Device, Ensemble, Key};
/// use elbo::engine::params::Params;
/// use elbo::Graph;
///
/// let ensemble = Ensemble::new(Device::Cpu { threads: 1 }, 2)?;
/// let value = |x: f32| -> elbo::Result<f32> {
///     let executor = ensemble.open()?;
///     let mut state = executor.state(&Params::new(), 0)?;
///     let g = Graph::new();
///     let squared = g.input(&[1]).square();
///     Ok(executor.compile(&g, [squared])?.call(&mut state, Key::new(0), &[&[x]])?[0][0])
/// };
/// let values = std::thread::scope(|threads| [2.0, 3.0].map(|x| threads.spawn(move || value(x))).map(|t| t.join().unwrap()));
/// assert_eq!(values.map(Result::unwrap), [4.0, 9.0]);
/// # Ok::<(), elbo::Error>(())
/// ```
pub struct Ensemble {
    device: Device,
    #[cfg(feature = "cuda")]
    gpu: Option<Arc<cuda::ensemble::EnsembleGpu>>,
}

/// How far the models of an [`Ensemble`] have shared launches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sharing {
    /// Runs of functions that were asked for.
    pub runs: u64,
    /// How many it took, each of one model or of several.
    pub launched: u64,
}

/// How long a run waits for those of other models: more than a host takes between two runs of a training, less than anybody
/// notices.
const PATIENCE: Duration = Duration::from_millis(10);

impl Ensemble {
    /// The most models that a GPU trains at the same time.
    pub const MOST_ON_A_GPU: usize = 16;

    /// Room for `models` models on a device.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for none, or on a GPU more than [`Ensemble::MOST_ON_A_GPU`];
    /// [`Error::Device`](crate::Error::Device) when there is no such device, or not enough memory.
    pub fn new(device: Device, models: usize) -> Result<Ensemble> {
        Ensemble::with_patience(device, models, PATIENCE)
    }

    /// As [`Ensemble::new`], where a run on a GPU waits so long for those of other models. No number depends on it.
    ///
    /// # Errors
    /// As [`Ensemble::new`].
    #[cfg_attr(not(feature = "cuda"), expect(unused_variables))]
    pub fn with_patience(device: Device, models: usize, patience: Duration) -> Result<Ensemble> {
        if models == 0 {
            return Err(crate::Error::argument("models", 0, "at least 1"));
        }
        Ok(Ensemble {
            device,
            #[cfg(feature = "cuda")]
            gpu: match device {
                // One alone has nobody to share with.
                Device::Cuda { ordinal, .. } if models > 1 => {
                    Some(cuda::ensemble::EnsembleGpu::new(ordinal, models, patience)?)
                }
                _ => None,
            },
        })
    }

    /// An executor for one model. Its place is free again when the executor and all that came of it are gone.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) when there is no room for another model on a GPU; as [`Device::open`].
    pub fn open(&self) -> Result<Executor> {
        #[cfg(feature = "cuda")]
        if let (Some(gpu), Device::Cuda { ordinal, precision }) = (&self.gpu, self.device) {
            return Ok(Executor::new(cuda::Cuda::in_ensemble(gpu, ordinal, precision)?));
        }
        self.device.open()
    }

    /// How far launches were shared; none where there is nothing to share.
    pub fn sharing(&self) -> Option<Sharing> {
        #[cfg(feature = "cuda")]
        return self.gpu.as_ref().map(|gpu| gpu.sharing());
        #[cfg(not(feature = "cuda"))]
        None
    }
}
