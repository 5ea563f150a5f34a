//! Functions that a kernel applies to what it writes.

use crate::simd::Simd;

/// A function of one element whose gradient follows from its value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `y = x`
    None,
    /// `y = max(x, 0)`; the gradient passes where `y > 0`.
    Relu,
    /// `y = min(max(x, min), max)`; the gradient passes where `min < y < max`.
    Clip {
        /// The least value.
        min: f32,
        /// The greatest value.
        max: f32,
    },
}

/// An activation as a type, so that loops are compiled for each.
pub(crate) trait Activate: Copy + Send + Sync {
    /// Whether `gate` looks at its first argument.
    const GATED: bool = true;
    /// The activation of each; NaN stays.
    unsafe fn of<S: Simd>(self, x: S::V) -> S::V;
    /// `dy` where the gradient passes, else 0; `y` may also be the argument of the activation.
    unsafe fn gate<S: Simd>(self, y: S::V, dy: S::V) -> S::V;
}

#[derive(Clone, Copy)]
pub(crate) struct Identity;

impl Activate for Identity {
    const GATED: bool = false;

    #[inline(always)]
    unsafe fn of<S: Simd>(self, x: S::V) -> S::V {
        x
    }

    #[inline(always)]
    unsafe fn gate<S: Simd>(self, _: S::V, dy: S::V) -> S::V {
        dy
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Relu;

impl Activate for Relu {
    #[inline(always)]
    unsafe fn of<S: Simd>(self, x: S::V) -> S::V {
        S::max(S::splat(0.0), x)
    }

    #[inline(always)]
    unsafe fn gate<S: Simd>(self, y: S::V, dy: S::V) -> S::V {
        S::where_positive(y, dy)
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Clip {
    pub min: f32,
    pub max: f32,
}

impl Activate for Clip {
    #[inline(always)]
    unsafe fn of<S: Simd>(self, x: S::V) -> S::V {
        S::min(S::splat(self.max), S::max(S::splat(self.min), x))
    }

    #[inline(always)]
    unsafe fn gate<S: Simd>(self, y: S::V, dy: S::V) -> S::V {
        let below = S::where_positive(S::sub(S::splat(self.max), y), dy);
        S::where_positive(S::sub(y, S::splat(self.min)), below)
    }
}

/// Evaluates an expression with `$name` bound to the type of an activation.
macro_rules! with_activation {
    ($activation:expr, $name:ident => $body:expr) => {
        match $activation {
            $crate::activation::Activation::None => {
                let $name = $crate::activation::Identity;
                $body
            }
            $crate::activation::Activation::Relu => {
                let $name = $crate::activation::Relu;
                $body
            }
            $crate::activation::Activation::Clip { min, max } => {
                let $name = $crate::activation::Clip { min, max };
                $body
            }
        }
    };
}
pub(crate) use with_activation;
