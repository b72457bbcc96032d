/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * ops.h: everything a device can compute. Each op is declared once, as a function type that carries its contract. The lists at the
 * end name all ops; the table DpOps, the prototypes and the tables of all backends derive from them.
 *
 * A backend (ref, cpu, cuda) is one complete `static const DpOps`. Callers reach it through DpDevice (device.h) and do not know
 * which one they have. An op sees pointers, sizes and its device; it knows no model, no tensor object and no block.
 * To add an op: its type here and its name in a list, `name_backend` in each backend, and a test.
 *
 * Shapes: L rows (tokens or pixels), D width, H heads, d head dimension (D = H * d), C channels, T frames.
 * Matrices are row-major; *_stride is the distance between rows in elements (0 means densely packed).
 * Activations marked "type" are float32 or bfloat16 as the argument struct says; everything else is float32.
 * Arithmetic inside an op (statistics, softmax, accumulation, epilogues) is float32 whatever the storage type.
 *
 * Blocking: an op may return before it is complete (a queue on the device) or run to its end on the caller's thread;
 * ops on one device complete in the order of their calls. Only transfer runs beside them. Failures latch on the device
 * (dp_device_check, dp_device_take_error).
 * Determinism: the bits of a result depend on the arguments and the kind of device only, never on the number of threads,
 * and a row of a result never depends on how many other rows were computed in the same call.
 * Thread-safety: a DpDevice and all that was made on it belong to one thread at a time, unless an op says otherwise.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct DpDevice DpDevice;
typedef struct DpLinear DpLinear;       /* a packed weight of the backend's own layout */
typedef struct DpConv DpConv;           /* likewise, for a convolution */

typedef enum
{
  DP_TYPE_F32,
  DP_TYPE_BF16,
  DP_TYPE_F16,                  /* weights in files only, never activations */
} DpType;

/** Bytes of one element of `type`. */
static inline size_t
dp_type_size (DpType type)
{
  return type == DP_TYPE_F32 ? 4 : 2;
}

/** Copies `bytes` bytes of a source, from `offset` on, to `to`. False: they cannot be read. Called from several threads at once. */
typedef bool dp_weight_read_fn (const void *source, uint64_t offset, void *to, size_t bytes);

/** A weight in host memory, or one that is read piece by piece while it is packed: nothing maps the file that it lies in, which may
 *  become shorter at any time. Read once. One that holds NaN or infinity, or cannot be read, is refused then: a failure latches on the
 *  device, and nothing is packed. */
typedef struct
{
  const void *data;             /* in memory, or NULL */
  DpType type;
  int rows;                     /* output features this piece contributes */
  dp_weight_read_fn *read;      /* what reads it if data is NULL; both NULL: there is no such weight */
  const void *source;
  uint64_t offset;              /* of the first element in source, in bytes */
} DpHostWeight;

/* ---- memory ---- */

/** 64-byte aligned, contents undefined; NULL: not enough memory. May block. For open and close, as are the next three. */
typedef void *dp_alloc_fn (DpDevice *dev, size_t bytes);

/** NULL is fine. May block. */
typedef void dp_free_fn (DpDevice *dev, void *ptr);

/** Likewise, but the host's memory: upload, download and transfer are fastest with it. */
typedef void *dp_host_alloc_fn (DpDevice *dev, size_t bytes);
typedef void dp_host_free_fn (DpDevice *dev, void *ptr);

/** `host` may be reused on return. */
typedef void dp_upload_fn (DpDevice *dev, void *dst, const void *host, size_t bytes);

/** Blocks until the bytes are there. */
typedef void dp_download_fn (DpDevice *dev, void *host, const void *src, size_t bytes);

/** Within the device, no overlap. */
typedef void dp_copy_fn (DpDevice *dev, void *dst, const void *src, size_t bytes);

/** Every byte of dst = byte. */
typedef void dp_fill_fn (DpDevice *dev, void *dst, int byte, size_t bytes);

/** Blocks until all that was queued is done, transfers included. */
typedef void dp_sync_fn (DpDevice *dev);

/* ---- marks and transfers: order between devices, without draining one ---- */

/** A point in a device's work: behind all that was queued on it when the mark was set. Setting a mark again moves it. A mark
 *  that was never set counts as reached. It must be freed before its device, the one it was made on, is closed.
 *
 *  Thread-safety: one thread at a time sets a mark; any thread may wait for it, follow it or read its time. */
typedef struct DpMark DpMark;

/** A copy from the memory of one open device to that of another, or of the same. */
typedef struct
{
  DpDevice *from;
  const void *src;              /* memory of `from`; if that is the host's, fastest from host_alloc of the GPU */
  DpDevice *to;
  void *dst;                    /* memory of `to`, likewise; may not overlap src */
  size_t bytes;
  const DpMark *after[2];       /* the copy starts once these are reached: src is ready (a mark of `from`), dst is free (a mark of
                                 * `to`). NULL: nothing to wait for */
  DpMark *done;                 /* set behind the copy; from dp_device_link_mark_new (from, to) */
} DpTransferArgs;

/* All of these are valid also on a cancelled device and after a failure: a mark is reached no later than the work before it ends. */

/** NULL: not enough memory, or a latched error says more. Any thread. */
typedef DpMark *dp_mark_new_fn (DpDevice *dev);

/** The mark may be of any device; NULL is fine. Any thread. */
typedef void dp_mark_free_fn (DpDevice *dev, DpMark *mark);

/** Sets a mark of `dev` behind all that was queued on it so far, transfers excepted. Never blocks. */
typedef void dp_mark_fn (DpDevice *dev, DpMark *mark);

/** Blocks the calling thread, any thread, until a mark is reached. The mark may be of any device; a failure latches on `dev`. */
typedef void dp_mark_wait_fn (DpDevice *dev, const DpMark *mark);

/** When a mark was reached, in microseconds of CLOCK_MONOTONIC, within a tenth of a millisecond; 0 if it was never set. Call it
 *  from any thread, after mark_wait. The mark may be of any device. */
typedef int64_t dp_mark_time_fn (DpDevice *dev, const DpMark *mark);

/** What is queued on `dev` from now on runs after a mark was reached, which may be of any device. A GPU that follows a GPU never
 *  blocks the caller; a host device waits for a GPU's mark here. */
typedef void dp_follow_fn (DpDevice *dev, const DpMark *mark);

/** Starts a copy; dev == args->from, whose thread calls. It runs beside the ops of both devices: only after[] and `done` order it
 *  against them, and the transfers of one device among themselves keep their order. src must stay as it is, and dst belongs to the
 *  transfer, until `done` is reached. Never blocks where both ends are GPUs or a GPU and pinned memory; else it may block until
 *  after[] is reached and the bytes are copied. The thread of `to` may be at work meanwhile. Failures latch on `from`. If `from`
 *  is cancelled or has failed, nothing is copied, but `done` is still reached. */
typedef void dp_transfer_fn (DpDevice *dev, const DpTransferArgs *args);

/* ---- linear: y[L, N] = act (x[L, K] . W[N, K]^T + bias[N]) ---- */

typedef enum
{
  DP_ACT_NONE,
  DP_ACT_GELU_TANH,
  DP_ACT_SILU,
} DpActivation;

/** How to pack a linear layer. Several pieces are stacked by rows (q, k and v as one product). */
typedef struct
{
  int k;                        /* input features */
  DpType type;                  /* of x, and of the packed weight */
  int rows;                     /* how many rows of x a call usually has; 0 means many */
  int n_weights;
  const DpHostWeight *weights;  /* each [rows, k] */
  const DpHostWeight *biases;   /* each [rows], or NULL for no bias at all */
  bool fp8;                     /* multiply in e4m3 where dp_linear_fits_e4m3(): each row of W and of x is scaled by a power of two
                                 * (e4m3.h) and rounded; type is bfloat16. Only where DpDeviceInfo says so */
} DpLinearSpec;

/** Whether a layer of K -> N features can be multiplied in e4m3. */
static inline bool
dp_linear_fits_e4m3 (int k, int n)
{
  return k % 16 == 0 && n % 16 == 0;
}

typedef struct
{
  int rows;                     /* L */
  const void *x;                /* [L, K], the type the layer was packed with */
  const float *x_inverse;       /* [L] or NULL: x is in e4m3 already, and this is 1 / scale of each of its rows (layer_norm makes both);
                                 * for a layer that multiplies in e4m3 */
  int x_stride;
  void *y;                      /* [L, N]; may not alias x */
  int y_stride;
  DpType y_type;
  DpActivation act;
  bool accumulate;              /* y += gate * (...) instead of y = ...; y_type is float32 then, and act none */
  const float *gate;            /* [N] or NULL for 1; only with accumulate. In bfloat16, W may be multiplied with it and rounded */
} DpLinearArgs;

/** Packs a layer's weights. May block. NULL: not enough memory (or a latched error says more). */
typedef DpLinear *dp_linear_new_fn (DpDevice *dev, const DpLinearSpec *spec);
typedef void dp_linear_free_fn (DpDevice *dev, DpLinear *linear);

/** Packs other weights into a layer, of the shape and types it has, with biases or without as it was; ordered with the ops. The
 *  host's memory may be reused on return. The layer then gives the bits of a new one. False: as NULL above, and what the layer holds
 *  is undefined. */
typedef bool dp_linear_refill_fn (DpDevice *dev, DpLinear *linear, const DpLinearSpec *spec);

typedef void dp_linear_fn (DpDevice *dev, const DpLinear *linear, const DpLinearArgs *args);

/* ---- conv: causal convolution in time, same-padded in space, channels last ---- */

/** y[t, h, w, Co] = bias + sum over x[t .. t+kt), the kh x kw neighbourhood (zeros outside the picture) and Ci. */
typedef struct
{
  int ci, co;
  int kt, kh, kw;               /* kh and kw odd */
  DpType type;                  /* of x, y, add and the packed weight */
  DpHostWeight weight;          /* [co, ci, kt, kh, kw] as in the file */
  DpHostWeight bias;            /* [co]; data and read NULL for none */
} DpConvSpec;

typedef struct
{
  int t, h, w;                  /* of the input; the output has t - kt + 1 frames: the caller puts the past in front */
  const void *x;                /* [t, h, w, ci] */
  const void *add;              /* [t - kt + 1, h, w, co] added to the result, or NULL; may be y itself */
  void *y;                      /* [t - kt + 1, h, w, co]; may not alias x */
} DpConvArgs;

/** As dp_linear_new_fn. */
typedef DpConv *dp_conv_new_fn (DpDevice *dev, const DpConvSpec *spec);
typedef void dp_conv_free_fn (DpDevice *dev, DpConv *conv);

typedef void dp_conv_fn (DpDevice *dev, DpConv *conv, const DpConvArgs *args);

/* ---- attention: out = softmax (scale * q . k^T + bias) . v, per head ---- */

typedef struct
{
  DpType type;                  /* of q, k, v and out */
  int heads, head_dim;
  int q_len, kv_len;
  const void *q, *k, *v;        /* row r, head h at [r * stride + h * head_dim] */
  int q_stride, k_stride, v_stride;
  void *out;                    /* [q_len, H * d]; may not alias the inputs */
  int out_stride;
  float scale;
  float last_key_bias;          /* added to the logit of the last key: log (n) makes it stand for n equal keys; else 0 */
  const float *rel_bias;        /* [H, 2 * M - 1], added to logit (i, j) at index j - i + M - 1; or NULL; with it, q_len == kv_len */
  int rel_bias_keys;            /* M, kv_len or more; 0 means kv_len */
  bool fp8;                     /* q, k, v, the probabilities and out may be rounded to e4m3, each matrix scaled as a whole by a power of
                                 * two: then a row does depend on the other rows. type is bfloat16 */
} DpAttentionArgs;

typedef void dp_attention_fn (DpDevice *dev, const DpAttentionArgs *args);

/* ---- norms ---- */

/** y = (x - mean) / sqrt (var + eps) * gain + shift, over each row. Modulation is gain = 1 + scale. */
typedef struct
{
  int rows, cols;
  const float *x;               /* [rows, cols] dense */
  const float *gain, *shift;    /* [cols] or NULL for 1 and 0 */
  float eps;
  void *y;                      /* [rows, cols] dense; may not alias x */
  DpType y_type;
  float *inverse;               /* [rows] or NULL: y is in e4m3, whatever y_type says, each row scaled by a power of two (e4m3.h), and
                                 * here comes 1 / scale. Only where DpDeviceInfo.fp8 and dp_layer_norm_fits_e4m3() */
} DpLayerNormArgs;

/** Whether rows of so many numbers can be made in e4m3. */
static inline bool
dp_layer_norm_fits_e4m3 (int cols)
{
  return cols % 16 == 0 && cols <= 16384;
}

typedef void dp_layer_norm_fn (DpDevice *dev, const DpLayerNormArgs *args);

/** y = rope (x / sqrt (mean (x^2) + eps) * weight): the mean runs over a whole row (all heads' channels);
 *  rope turns each interleaved pair (2i, 2i+1) of a head by the row's angle i. Either may be absent; without both it copies rows.
 *  With several parts a row is that many such rows side by side (q and k), each with its own norm and weight and the same angles. */
typedef struct
{
  int rows, heads, head_dim;
  int parts;                    /* P; 0 means 1 */
  const void *x;                /* [rows, P * H * d]; may be y (same type and stride) */
  DpType x_type;
  int x_stride;
  const float *weight;          /* [P, H * d], or NULL: no norm */
  float eps;
  const float *rope;            /* [rows, d] as (cos, sin) pairs, or NULL: no rotation */
  void *y;
  DpType y_type;
  int y_stride;
} DpRmsNormArgs;

typedef void dp_rms_norm_fn (DpDevice *dev, const DpRmsNormArgs *args);

/** y = act (x / max (||x||, 1e-12) * sqrt (C) * gamma) over the channels of each pixel (the VAE's norm), act silu or none. */
typedef struct
{
  DpType type;                  /* of x and y */
  int rows, channels;
  const void *x;                /* [rows, C] dense; may be y */
  const float *gamma;           /* [C] */
  DpActivation act;
  void *y;
} DpChannelNormArgs;

typedef void dp_channel_norm_fn (DpDevice *dev, const DpChannelNormArgs *args);

/* ---- pictures ---- */

/** y[t', 2h, 2w, C] = nearest-neighbour x2 in space of x. With temporal, x has 2C channels and every frame of x becomes two:
 *  channels [0, C) first, then [C, 2C). */
typedef struct
{
  DpType type;
  int t, h, w, channels;        /* t, h, w of x; C of y */
  bool temporal;
  const void *x;
  void *y;
} DpUpsampleArgs;

typedef void dp_upsample_fn (DpDevice *dev, const DpUpsampleArgs *args);

/** Channels become frames and pixels. y[t * frames + a - skip, 2 h + b, 2 w + c, o] is channel ((o * frames + a) * 4 + p) / r of
 *  x[t, h, w], where p = 2 b + c (transposed: 2 c + b) is the place among the four pixels and r = 4 * frames * co / ci, a whole number, is
 *  how often each channel is taken. Copies bits. */
typedef struct
{
  DpType type;
  int t, h, w;                  /* of x */
  int ci, co;                   /* channels of x and of y */
  int frames;                   /* of y for each of x */
  int skip;                     /* frames of y that are left out at the beginning, fewer than `frames` */
  bool transposed;
  const void *x;                /* [t, h, w, ci] */
  void *y;                      /* [t * frames - skip, 2 h, 2 w, co]; may not alias x */
} DpPixelShuffleArgs;

typedef void dp_pixel_shuffle_fn (DpDevice *dev, const DpPixelShuffleArgs *args);

/** Pixel formats frames can be delivered in; YUV is BT.709 limited range, chroma averaged over 2x2; RGB is full range. */
typedef enum
{
  DP_PIXELS_RGB_F32,            /* [H, W, 3] float32 in 0..1 */
  DP_PIXELS_I420,
  DP_PIXELS_NV12,
  DP_PIXELS_RGB,
  DP_PIXELS_BGR,
  DP_PIXELS_RGBX,               /* the fourth byte is 255, so these serve as RGBA, BGRA, ARGB, ABGR too */
  DP_PIXELS_BGRX,
  DP_PIXELS_XRGB,
  DP_PIXELS_XBGR,
} DpPixels;

typedef struct
{
  DpType type;                  /* of x */
  DpPixels format;
  int h, w;                     /* even */
  const void *x;                /* [h, w, 3], -1..1; clamped here; 8-bit results are rounded to nearest */
  int x_stride;                 /* pixels between rows of x: more than w where it is a part of a larger picture */
  void *planes[3];              /* 1 (packed), 2 (NV12) or 3 (I420) of them, in device memory */
  int strides[3];               /* bytes between rows of each plane */
} DpPackFrameArgs;

typedef void dp_pack_frame_fn (DpDevice *dev, const DpPackFrameArgs *args);

/** Latents [T, h, w, C] float32 -> tokens [T * (h/2) * (w/2), 4 * C], features ordered (row in patch, column, channel). */
typedef void dp_patchify_fn (DpDevice *dev, int t, int h, int w, int channels, const float *x, DpType y_type, void *y);

/** The way back: tokens float32 [T * (h/2) * (w/2), 4 * C] -> [T, h, w, C]. */
typedef void dp_unpatchify_fn (DpDevice *dev, int t, int h, int w, int channels, const float *x, float *y);

/* ---- elements ---- */

/** y[n] = a[n] * b[n]; y may be a or b. The gate of a gated feed-forward. */
typedef void dp_multiply_fn (DpDevice *dev, size_t n, DpType type, const void *a, const void *b, void *y);

/** y[n] = sum over terms of coef[i] * x[i][n], float32, summed in the order given; y may be any x[i]. terms <= 8. */
typedef void dp_combine_fn (DpDevice *dev, size_t n, int terms, const float *const *x, const float *coef, float *y);

/** y = x converted; no aliasing. Rounds to nearest even. */
typedef void dp_convert_fn (DpDevice *dev, size_t n, DpType x_type, const void *x, DpType y_type, void *y);

/* ---- the lists: X (op, arg) for each op ---- */

/** Memory, order and transfers: the backends whose memory is the host's share them (host.c). */
#define DP_MEMORY_OPS(X, arg) \
  X (alloc, arg) X (free, arg) X (host_alloc, arg) X (host_free, arg) X (upload, arg) X (download, arg) X (copy, arg) X (fill, arg) \
  X (sync, arg) X (mark_new, arg) X (mark_free, arg) X (mark, arg) X (mark_wait, arg) X (mark_time, arg) X (follow, arg) \
  X (transfer, arg)

#define DP_COMPUTE_OPS(X, arg) \
  X (linear_new, arg) X (linear_free, arg) X (linear_refill, arg) X (linear, arg) X (conv_new, arg) X (conv_free, arg) X (conv, arg) \
  X (attention, arg) X (layer_norm, arg) X (rms_norm, arg) X (channel_norm, arg) X (upsample, arg) X (pack_frame, arg) \
  X (patchify, arg) X (unpatchify, arg) X (multiply, arg) X (combine, arg) X (convert, arg) X (pixel_shuffle, arg)

/* What X can be: an entry of DpOps; a prototype, layer_norm_ref; an initialiser, .layer_norm = layer_norm_ref. */
#define DP_OP_FIELD(op, arg) dp_##op##_fn *op;
#define DP_OP_PROTOTYPE(op, backend) dp_##op##_fn op##_##backend;
#define DP_OP_ENTRY(op, backend) .op = op##_##backend,

/** The table. Every entry is there in every backend. */
typedef struct
{
  const char *name;             /* "ref", "cpu", "cuda" */
  DP_MEMORY_OPS (DP_OP_FIELD, )
  DP_COMPUTE_OPS (DP_OP_FIELD, )
} DpOps;
