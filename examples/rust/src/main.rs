// SPDX-License-Identifier: Apache-2.0
//! One call on host memory from Rust, without crates: causal attention, compared with the oracle.
//!
//!     cargo run                        with the shared library
//!     FASTATTN_STATIC=1 cargo run      with the static one
//!     cargo run -- --layout            the structs' layout as a C file, which compiles if Rust and C agree
mod fastattn;
use fastattn::*;
use std::ffi::{CStr, CString};
use std::ptr::{null, null_mut};

const HEADS: usize = 4;
const HEADS_KV: usize = 2;
const ROWS: usize = 24;
const DIM: usize = 32;

/// The message of the last call where it failed.
fn check(status: fa_status) -> Result<(), String> {
    if status == FA_OK {
        return Ok(());
    }
    let message = unsafe { CStr::from_ptr(fa_last_error()) };
    Err(message.to_string_lossy().into_owned())
}

struct Context(*mut fa_context);

impl Context {
    fn new() -> Result<Self, String> {
        let mut context = null_mut();
        check(unsafe { fa_context_create(null(), &mut context) })?;
        Ok(Context(context))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        unsafe { fa_context_destroy(self.0) }
    }
}

/// Borrows its context, which must outlive it.
struct Device<'a>(*mut fa_device, &'a Context);

impl<'a> Device<'a> {
    /// No name: what FASTATTN_BACKEND says, or the device that the cost model finds fastest for `desc`.
    fn open(context: &'a Context, name: Option<&str>, desc: &fa_attention_desc) -> Result<Self, String> {
        let name = name.map(|name| CString::new(name).expect("a name without a zero byte"));
        let name = name.as_ref().map_or(null(), |name| name.as_ptr());
        let mut device = null_mut();
        check(unsafe { fa_device_open(context.0, name, desc, &mut device) })?;
        Ok(Device(device, context))
    }
}

impl Drop for Device<'_> {
    fn drop(&mut self) {
        unsafe { fa_device_close(self.0) }
    }
}

/// Contiguous, of axes batch, heads, rows, dim.
fn tensor(heads: usize) -> fa_tensor {
    let mut tensor = fa_tensor::zeroed();
    tensor.dtype = FA_F32;
    tensor.shape = [1, heads as i64, ROWS as i64, DIM as i64];
    tensor
}

fn numbers(heads: usize, step: usize) -> Vec<f32> {
    (0..heads * ROWS * DIM).map(|i| (i * step % 97) as f32 / 48.0 - 1.0).collect()
}

fn run(name: Option<&str>) -> Result<(), String> {
    let mut desc = fa_attention_desc::zeroed();
    desc.struct_size = std::mem::size_of::<fa_attention_desc>();
    desc.q = tensor(HEADS);
    desc.k = tensor(HEADS_KV);
    desc.v = tensor(HEADS_KV);
    desc.o = tensor(HEADS);
    desc.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
    let (q, k, v) = (numbers(HEADS, 7), numbers(HEADS_KV, 11), numbers(HEADS_KV, 5));
    let mut inputs = fa_inputs::zeroed();
    inputs.q = q.as_ptr().cast();
    inputs.k = k.as_ptr().cast();
    inputs.v = v.as_ptr().cast();

    let context = Context::new()?;
    let device = Device::open(&context, name, &desc)?;
    let mut o = vec![0f32; q.len()];
    check(unsafe {
        let output = o.as_mut_ptr().cast();
        fa_attention_host(device.0, &desc, inputs.q, inputs.k, inputs.v, null(), null(), output, null_mut())
    })?;

    // The oracle, and how far f32 arithmetic may be from it in each row.
    let mut exact = vec![0f64; o.len()];
    let (mut limit, mut limit_lse) = (vec![0f64; HEADS * ROWS], vec![0f64; HEADS * ROWS]);
    check(unsafe { fa_reference_attention(device.1 .0, &desc, &inputs, exact.as_mut_ptr(), null_mut()) })?;
    check(unsafe {
        let (o, lse) = (limit.as_mut_ptr(), limit_lse.as_mut_ptr());
        fa_reference_limit(context.0, &desc, &inputs, FA_F32, 0, o, lse)
    })?;
    let rounding = f64::from(f32::EPSILON) / 2.0; // of the output itself
    for (i, (&got, &expected)) in o.iter().zip(&exact).enumerate() {
        let error = (f64::from(got) - expected).abs();
        if !(error <= limit[i / DIM] + rounding * expected.abs()) {
            return Err(format!("o[{i}] is {got}, expected {expected}"));
        }
    }
    let version = unsafe { CStr::from_ptr(fa_version()) }.to_string_lossy();
    println!("fastattn {version} from Rust: {} elements as the oracle has them, the last is {}", o.len(), o[o.len() - 1]);
    Ok(())
}

fn main() -> Result<(), String> {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some("--layout") {
        println!("#include <fastattn/fastattn.h>\n#include <fastattn/reference.h>");
        fa_tensor::print_layout();
        fa_attention_desc::print_layout();
        fa_inputs::print_layout();
        return Ok(());
    }
    run(argument.as_deref())
}
