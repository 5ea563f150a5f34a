//! On what a run computes.

use std::fmt;
use std::str::FromStr;

/// A device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// NVIDIA's device of this number, as CUDA counts them.
    Cuda(u32),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(0) => f.write_str("cuda"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// A text that names no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected \"cpu\", \"cuda\" or \"cuda:N\", found \"{0}\"")]
pub struct NoDevice(pub String);

impl FromStr for Device {
    type Err = NoDevice;

    fn from_str(text: &str) -> Result<Device, NoDevice> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(Device::Cpu),
            None if text == "cuda" => Ok(Device::Cuda(0)),
            Some(("cuda", index)) if index.bytes().all(|digit| digit.is_ascii_digit()) => {
                index.parse().map(Device::Cuda).map_err(|_| NoDevice(text.into()))
            }
            _ => Err(NoDevice(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Device;

    #[test]
    fn devices_are_read_as_they_are_written() {
        let cases = [("cpu", Some(Device::Cpu)), ("cuda", Some(Device::Cuda(0))), ("cuda:0", Some(Device::Cuda(0)))];
        let more = [("cuda:12", Some(Device::Cuda(12))), ("cuda:", None), ("cuda:+1", None), ("CUDA", None)];
        let refused = [("cpu:0", None), ("", None), ("cuda:99999999999", None), ("gpu", None)];
        for (text, expected) in cases.into_iter().chain(more).chain(refused) {
            let found = text.parse::<Device>();
            assert_eq!(found.as_ref().ok(), expected.as_ref(), "{text}");
            if let Some(device) = expected {
                assert_eq!(device.to_string().parse(), Ok(device));
            } else {
                assert!(found.unwrap_err().to_string().contains(&format!("found \"{text}\"")));
            }
        }
    }
}
