//! The units of a plan.

use crate::out::{Grows, at, give, some};
use crate::plan::fp_plan;
use crate::status::{fp_status, guard};
use std::ffi::c_char;
use std::mem::MaybeUninit;

/// What a policy freezes as one, and what it costs while it trains.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct fp_unit {
    /// Module path, such as "layer1.0.conv1".
    pub path: *const c_char,
    /// Class of the module, or operator.
    pub class_name: *const c_char,
    /// Parameters of the unit.
    pub parameters: usize,
    /// Elements of those.
    pub elements: u64,
    /// Flops of a step for the forward pass.
    pub forward_flops: u64,
    /// Flops of a step for gradients with respect to data.
    pub input_grad_flops: u64,
    /// Flops of a step for gradients with respect to parameters.
    pub weight_grad_flops: u64,
    /// Bytes of gradients and optimizer slots.
    pub state_bytes: u64,
}

impl Grows for fp_unit {}

/// Counts the units, which stand from the input side.
#[unsafe(no_mangle)]
pub extern "C" fn fp_plan_units(plan: Option<&fp_plan>, count: Option<&mut MaybeUninit<usize>>) -> fp_status {
    guard(|| {
        let plan = some(plan, "plan")?;
        some(count, "count")?.write(plan.plan.units.len());
        Ok(())
    })
}

/// Returns a unit; size is sizeof *unit. Its texts live as long as the plan.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fp_plan_unit(
    plan: Option<&fp_plan>,
    index: usize,
    unit: *mut fp_unit,
    size: usize,
) -> fp_status {
    guard(|| {
        let plan = some(plan, "plan")?;
        let found = at(&plan.plan.units, index, "unit")?;
        let value = fp_unit {
            path: plan.names.text(&found.path),
            class_name: plan.names.text(&found.class),
            parameters: found.parameters.len(),
            elements: found.elements,
            forward_flops: found.flops.forward,
            input_grad_flops: found.flops.input_grad,
            weight_grad_flops: found.flops.weight_grad,
            state_bytes: found.state_bytes,
        };
        // SAFETY: the header asks for room of that size or NULL.
        unsafe { give(unit, size, "unit", value) }
    })
}

/// Returns the name of a parameter of a unit. It lives as long as the plan.
#[unsafe(no_mangle)]
pub extern "C" fn fp_plan_unit_parameter(
    plan: Option<&fp_plan>,
    unit: usize,
    index: usize,
    name: Option<&mut MaybeUninit<*const c_char>>,
) -> fp_status {
    guard(|| {
        let plan = some(plan, "plan")?;
        let found = at(&at(&plan.plan.units, unit, "unit")?.parameters, index, "parameter")?;
        some(name, "name")?.write(plan.names.text(found));
        Ok(())
    })
}
