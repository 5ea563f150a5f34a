//! Records of a TFRecord file: length, checksum of the length, data, checksum of the data.

/// Returns data as a record.
pub(super) fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut bytes = Vec::with_capacity(data.len() + 16);
    bytes.extend(length);
    bytes.extend(masked(&length).to_le_bytes());
    bytes.extend(data);
    bytes.extend(masked(data).to_le_bytes());
    bytes
}

/// Returns the CRC-32C of bytes in the form that is safe to store beside them:
/// `rotate_right(crc, 15) + 0xa282ead8`.
fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Returns the data of the records of a file, each checked.
#[cfg(test)]
pub(super) fn records(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = bytes;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (head, after) = rest.split_at(12);
        let length: [u8; 8] = head[..8].try_into().unwrap();
        assert_eq!(masked(&length).to_le_bytes(), head[8..], "the checksum of the length");
        let (data, after) = after.split_at(usize::try_from(u64::from_le_bytes(length)).unwrap());
        assert_eq!(masked(data).to_le_bytes(), after[..4], "the checksum of the data");
        found.push(data.to_vec());
        rest = &after[4..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first two from RFC 3720, B.4; the records as `tensorboard.summary.writer.record_writer` writes them.
    #[test]
    fn checksums_and_records_are_those_of_tensorboard() {
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c::crc32c(&[0xff; 32]), 0x62a8_ab43);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&record(b"")), "000000000000000029039807d8ea82a2");
        assert_eq!(hex(&record(b"freeze")), "06000000000000007369d537667265657a6557cb9a96");
    }
}
