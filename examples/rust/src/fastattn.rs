// SPDX-License-Identifier: Apache-2.0
//! What this example needs of the C headers, declared by hand. Names, fields and their order are those of C.
#![allow(non_camel_case_types)]
use std::ffi::{c_char, c_void};
use std::mem;

/// A struct of C, all of whose fields may be zero, and its layout as assertions that a C compiler checks.
macro_rules! c_struct {
    ($name:ident { $($field:ident: $type:ty,)* }) => {
        #[repr(C)]
        #[derive(Clone, Copy)]
        pub struct $name {
            $(pub $field: $type,)*
        }

        impl $name {
            /// All fields zero, which is their default.
            pub fn zeroed() -> Self {
                unsafe { mem::zeroed() }
            }

            pub fn print_layout() {
                let (name, value) = (stringify!($name), Self::zeroed());
                let base = &value as *const Self as usize;
                // A newer library may have more fields behind these.
                println!("_Static_assert(sizeof({name}) >= {}, \"{name}\");", mem::size_of::<Self>());
                $(
                    let offset = &value.$field as *const _ as usize - base;
                    let field = stringify!($field);
                    println!("_Static_assert(offsetof({name}, {field}) == {offset}, \"{name}.{field}\");");
                    println!("_Static_assert(sizeof((({name} *)0)->{field}) == {}, \"{name}.{field}\");",
                        mem::size_of_val(&value.$field));
                )*
            }
        }
    };
}

// Enumerations of C that come back from calls, or go into structs: numbers here, so that none is out of range.
pub type fa_status = i32;
pub const FA_OK: fa_status = 0;
pub type fa_dtype = i32;
pub const FA_F32: fa_dtype = 0;
pub type fa_mask_kind = i32;
pub const FA_MASK_CAUSAL_BOTTOM_RIGHT: fa_mask_kind = 2;

c_struct!(fa_tensor {
    dtype: fa_dtype,
    shape: [i64; 4],
    stride: [i64; 4],
});

c_struct!(fa_attention_desc {
    struct_size: usize,
    q: fa_tensor,
    k: fa_tensor,
    v: fa_tensor,
    o: fa_tensor,
    scale: f32,
    scale_is_set: i32,
    softcap: f32,
    mask: fa_mask_kind,
    alignment: i32,
    window_left: i64,
    window_right: i64,
    prefix: i64,
    diagonal_offset: i64,
    sequences: i64,
    cu_rows_q: *const i64,
    cu_rows_kv: *const i64,
    lens_q: *const i64,
    lens_kv: *const i64,
    cu_rows_q32: *const i32,
    cu_rows_kv32: *const i32,
    lens_q32: *const i32,
    lens_kv32: *const i32,
    first_kv: *const i64,
    first_kv32: *const i32,
    page_table: fa_tensor,
    k_scale: fa_tensor,
    v_scale: fa_tensor,
    k_zero: fa_tensor,
    v_zero: fa_tensor,
    k_factor: f32,
    v_factor: f32,
    dynamic_lengths: i32,
    bias: fa_tensor,
    bias_factors: *const f32,
    keep: fa_tensor,
    keep_last: i64,
    alibi_slopes: *const f32,
    alibi_stride: i64,
    sinks: *const f32,
    want_lse: i32,
    tuning: *const c_void,
    want_status: i32,
    v_in_k: i32,
    lists: *const c_void,
    neighbourhood: *const c_void,
});

c_struct!(fa_inputs {
    q: *const c_void,
    k: *const c_void,
    v: *const c_void,
    bias: *const c_void,
    keep: *const c_void,
    page_table: *const c_void,
    k_scale: *const c_void,
    v_scale: *const c_void,
    k_zero: *const c_void,
    v_zero: *const c_void,
});

/// Objects of the library, which are only ever pointed to.
#[repr(C)]
pub struct fa_context {
    _private: [u8; 0],
}
#[repr(C)]
pub struct fa_device {
    _private: [u8; 0],
}

// build.rs names the library.
extern "C" {
    pub fn fa_version() -> *const c_char;
    pub fn fa_last_error() -> *const c_char;
    pub fn fa_context_create(options: *const c_void, context: *mut *mut fa_context) -> fa_status;
    pub fn fa_context_destroy(context: *mut fa_context);
    pub fn fa_device_open(
        context: *mut fa_context,
        name: *const c_char,
        desc: *const fa_attention_desc,
        device: *mut *mut fa_device,
    ) -> fa_status;
    pub fn fa_device_close(device: *mut fa_device);
    pub fn fa_attention_host(
        device: *mut fa_device,
        desc: *const fa_attention_desc,
        q: *const c_void,
        k: *const c_void,
        v: *const c_void,
        bias: *const c_void,
        keep: *const c_void,
        o: *mut c_void,
        lse: *mut f32,
    ) -> fa_status;
    pub fn fa_reference_attention(
        context: *mut fa_context,
        desc: *const fa_attention_desc,
        inputs: *const fa_inputs,
        o: *mut f64,
        lse: *mut f64,
    ) -> fa_status;
    pub fn fa_reference_limit(
        context: *mut fa_context,
        desc: *const fa_attention_desc,
        inputs: *const fa_inputs,
        weights: fa_dtype,
        merges: i32,
        o: *mut f64,
        lse: *mut f64,
    ) -> fa_status;
}
