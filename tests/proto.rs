//! The committed protobuf code is what `proto/onnx.proto` generates.
//! `UPDATE_PROTO=1 cargo test --test runner proto` writes it anew.

use std::path::Path;

#[test]
fn generated_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile([root.join("proto/onnx.proto")], [root.join("proto")]).unwrap();
    let out = tempfile::tempdir().unwrap();
    prost_build::Config::new().bytes(["."]).out_dir(out.path()).compile_fds(descriptors).unwrap();
    let generated = std::fs::read_to_string(out.path().join("onnx.rs")).unwrap();
    let committed = root.join("src/onnx/proto.rs");
    if std::env::var_os("UPDATE_PROTO").is_some() {
        std::fs::write(&committed, &generated).unwrap();
    }
    let current = std::fs::read_to_string(&committed).unwrap_or_default();
    assert!(current == generated, "src/onnx/proto.rs is not what proto/onnx.proto generates");
}
