//! The committed protobuf code is what the files of `proto/` generate.
//! `UPDATE_PROTO=1 cargo test --test runner proto` writes it anew.

use std::path::Path;

#[test]
fn generated_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cases = [("onnx", "src/onnx/proto.rs"), ("tensorboard", "src/sinks/tensorboard/proto.rs")];
    for (name, committed) in cases {
        let file = root.join("proto").join(format!("{name}.proto"));
        let descriptors = protox::compile([file], [root.join("proto")]).unwrap();
        let out = tempfile::tempdir().unwrap();
        let mut config = prost_build::Config::new();
        if name == "onnx" {
            config.bytes(["."]);
        }
        config.out_dir(out.path()).compile_fds(descriptors).unwrap();
        let generated = std::fs::read_to_string(out.path().join(format!("{name}.rs"))).unwrap();
        if std::env::var_os("UPDATE_PROTO").is_some() {
            std::fs::write(root.join(committed), &generated).unwrap();
        }
        let current = std::fs::read_to_string(root.join(committed)).unwrap_or_default();
        assert!(current == generated, "{committed} is not what proto/{name}.proto generates");
    }
}
