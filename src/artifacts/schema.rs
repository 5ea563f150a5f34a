//! The tables of a checkpoint file, a FlatBuffers file with the identifier `ODTC`.
//!
//! Slots are the positions of the fields in ONNX Runtime's schemas `ort_training_checkpoint.fbs` and
//! `ort.fbs` (`Tensor`). Everything is verified before it is read.

use flatbuffers::{
    Follow, ForwardsUOffset, InvalidFlatbuffer, Table, Vector, Verifiable, Verifier, VerifierOptions, root_with_opts,
};

type Many<'a, T> = ForwardsUOffset<Vector<'a, ForwardsUOffset<T>>>;
type Text<'a> = ForwardsUOffset<&'a str>;

macro_rules! table {
    ($name:ident<$l:lifetime> { $($field:ident @ $slot:literal: $kind:ty,)* }) => {
        /// The table of this name in the schema.
        #[derive(Clone, Copy, Debug)]
        pub(super) struct $name<$l>(Table<$l>);

        impl<$l> Follow<$l> for $name<$l> {
            type Inner = $name<$l>;

            unsafe fn follow(buffer: &$l [u8], at: usize) -> Self::Inner {
                // SAFETY: the caller has verified that a table lies there.
                $name(unsafe { Table::new(buffer, at) })
            }
        }

        impl<$l> Verifiable for $name<$l> {
            fn run_verifier(verifier: &mut Verifier<'_, '_>, at: usize) -> Result<(), InvalidFlatbuffer> {
                verifier
                    .visit_table(at)?
                    $(.visit_field::<$kind>(stringify!($field), slot($slot), false)?)*
                    .finish();
                Ok(())
            }
        }

        impl<$l> $name<$l> {
            $(
                pub(super) fn $field(&self) -> Option<<$kind as Follow<$l>>::Inner> {
                    // SAFETY: `root` is the only source of tables, and it has verified this field
                    // with the same type.
                    unsafe { self.0.get::<$kind>(slot($slot), None) }
                }
            )*
        }
    };
}

table!(Checkpoint<'a> {
    version @ 0: i32,
    module_state @ 1: ForwardsUOffset<ModuleState<'a>>,
    optimizer_groups @ 2: Many<'a, OptimizerGroup<'a>>,
    property_bag @ 3: ForwardsUOffset<PropertyBag<'a>>,
});

table!(ModuleState<'a> {
    requires_grad_params @ 0: Many<'a, Tensor<'a>>,
    frozen_params @ 1: Many<'a, Tensor<'a>>,
    is_nominal_state @ 2: bool,
    has_external_data @ 3: bool,
});

table!(OptimizerGroup<'a> {
    group_name @ 0: Text<'a>,
    step @ 1: i64,
    initial_learning_rate @ 2: f32,
    optimizer_states @ 3: Many<'a, ParameterOptimizerState<'a>>,
});

table!(ParameterOptimizerState<'a> {
    param_name @ 0: Text<'a>,
    momentums @ 1: Many<'a, Tensor<'a>>,
});

table!(PropertyBag<'a> {
    ints @ 0: Many<'a, IntProperty<'a>>,
    floats @ 1: Many<'a, FloatProperty<'a>>,
    strings @ 2: Many<'a, StringProperty<'a>>,
});

table!(IntProperty<'a> {
    name @ 0: Text<'a>,
    value @ 1: i64,
});

table!(FloatProperty<'a> {
    name @ 0: Text<'a>,
    value @ 1: f32,
});

table!(StringProperty<'a> {
    name @ 0: Text<'a>,
    value @ 1: Text<'a>,
});

table!(Tensor<'a> {
    name @ 0: Text<'a>,
    dims @ 2: ForwardsUOffset<Vector<'a, i64>>,
    data_type @ 3: i32,
    raw_data @ 4: ForwardsUOffset<Vector<'a, u8>>,
    external_data_offset @ 6: i64,
});

/// Returns where the field at a position lies in a table's index.
pub(super) const fn slot(position: u16) -> u16 {
    4 + 2 * position
}

/// What a checkpoint file starts with, after four bytes.
pub(super) const IDENTIFIER: &[u8] = b"ODTC";

/// Returns the root table of a file's bytes.
///
/// # Errors
/// The bytes are no checkpoint, or a table, text or list in them lies outside of them. The reason
/// is one line.
pub(super) fn root(bytes: &[u8]) -> Result<Checkpoint<'_>, String> {
    if bytes.get(4..8) != Some(IDENTIFIER) {
        return Err("it is no checkpoint of ONNX Runtime's on-device training".into());
    }
    // Shared parts count each time they are referred to, which bounds the work by the file's size.
    let options = VerifierOptions {
        max_tables: bytes.len() / 8,
        max_apparent_size: bytes.len().saturating_mul(4),
        ..VerifierOptions::default()
    };
    root_with_opts::<Checkpoint<'_>>(&options, bytes).map_err(|error| {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default().trim_end_matches('.');
        format!("it is damaged or cut short ({line})")
    })
}
