/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Shapes: t frames of h x w pixels, ci channels in and co out; see conv.h for how the work is cut.
 */
#include "conv.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

/* Weights in one of oneDNN's own layouts. */
typedef struct Packed Packed;
struct Packed
{
  Packed *next;
  dnnl_memory_desc_t md;
  dnnl_memory_t memory;
};

/* What one thread hands to a primitive: views whose addresses are set before each run. */
typedef struct
{
  dnnl_memory_t src, dst, scratchpad;
} Views;

/* One output frame of `rows` rows of width w, from kt frames of rows + kh - 1 rows. */
typedef struct Strip Strip;
struct Strip
{
  Strip *next;
  int rows, w;
  bool sum;                     /* adds to what is in dst */
  dnnl_primitive_t primitive;
  const Packed *packed;
  size_t scratchpad_size;
  Views *views;                 /* [threads] */
};

struct DpConv
{
  DpConvSpec spec;              /* its host pointers are not used after packing */
  float *bias;                  /* [co], zeros up to a multiple of 16 */

  /* -- few output channels: conv_isa.c */
  const DpConvTable *table;     /* NULL: the rest of this struct is in use instead */
  float *weights;

  /* -- oneDNN */
  DpType type;                  /* it computes in: float32 for bfloat16 where the processor has none */
  dnnl_memory_t bias_memory;
  Packed *packed;
  Strip *strips;
};

enum
{
  NARROW = 8,                   /* up to this many output channels oneDNN's 16 are mostly padding */
  STRIPS = 24,                  /* strips of a picture, about: work for many threads */
  NOMINAL_W = 64, NOMINAL_ROWS = 4,     /* the shape whose weight layout the weights are kept in; others are made on demand */
  STRIP_BYTES = 2 << 20,        /* scratch for the rows of a strip in kt frames, about: the cut must not depend on t */
  PLANES_BYTES = 384 << 10,     /* likewise, of planes: they are read often and stay in the second cache */
};

/* ---- one call ---- */

typedef struct
{
  DpConv *conv;
  const DpConvArgs *args;
  DpDeviceCpu *dev;
  int rows, n_strips;           /* of a strip, the last one excepted */
  const Strip *whole, *last;
  size_t src_size, dst_size;    /* bytes of scratch in front of the scratchpad */
  atomic_bool failed;           /* a primitive did */
  DpConvJob job;
} Call;

static dnnl_data_type_t
dnnl_type (DpType type)
{
  return type == DP_TYPE_F32 ? dnnl_f32 : dnnl_bf16;
}

static size_t
align (size_t bytes)
{
  return (bytes + 63) / 64 * 64;
}

static void
widen (const uint16_t *x, float *y, size_t n)
{
  uint32_t *bits = (uint32_t *) y;

  for (size_t i = 0; i < n; i++)
    bits[i] = (uint32_t) x[i] << 16;
}

static float
from_bf16 (uint16_t half)
{
  uint32_t bits = (uint32_t) half << 16;
  float x;

  memcpy (&x, &bits, 4);
  return x;
}

static uint16_t
to_bf16 (float x)
{
  uint32_t bits;

  memcpy (&bits, &x, 4);
  return x != x ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

/* Bytes of one row of the input, as the primitive reads it. */
static size_t
src_row (const Call *call)
{
  return (size_t) call->args->w * call->conv->spec.ci * dp_type_size (call->conv->type);
}

/* Rows [first, first + rows) of frame t into `to`, zeros outside the picture. */
static void
copy_rows (const Call *call, int t, int first, int rows, char *to)
{
  const DpConvArgs *a = call->args;
  size_t n = (size_t) a->w * call->conv->spec.ci, size = src_row (call);
  const char *frame = (const char *) a->x + (size_t) t * a->h * n * dp_type_size (call->conv->spec.type);

  for (int i = 0; i < rows; i++, to += size) {
    int y = first + i;

    if (y < 0 || y >= a->h)
      memset (to, 0, size);
    else if (call->conv->type == call->conv->spec.type)
      memcpy (to, frame + y * size, size);
    else
      widen ((const uint16_t *) frame + y * n, (float *) to, n);
  }
}

static void
execute (Call *call, const Strip *strip, int thread, const void *src, void *dst)
{
  const DpConv *conv = call->conv;
  const Views *views = &strip->views[thread];
  char *scratchpad = (char *) call->dev->scratch[thread] + call->src_size + call->dst_size;
  dnnl_exec_arg_t args[] = {
    { DNNL_ARG_SRC, views->src },
    { DNNL_ARG_WEIGHTS, strip->packed->memory },
    { DNNL_ARG_BIAS, conv->bias_memory },
    { DNNL_ARG_DST, views->dst },
    { DNNL_ARG_SCRATCHPAD, views->scratchpad },
  };

  /* These fail only on invalid handles. */
  dnnl_memory_set_data_handle (views->src, (void *) src);
  dnnl_memory_set_data_handle (views->dst, dst);
  dnnl_memory_set_data_handle (views->scratchpad, scratchpad);
  if (dnnl_primitive_execute (strip->primitive, call->dev->streams[thread], 5, args) != dnnl_success)
    atomic_store (&call->failed, true);
}

/* Frame t, rows [row0, ...) of the output, from kt frames of rows at src. */
static void
run_strip (Call *call, const Strip *strip, int thread, int t, int row0, const void *src)
{
  const DpConvArgs *a = call->args;
  const DpConv *conv = call->conv;
  DpType type = conv->spec.type;
  size_t n = (size_t) strip->rows * a->w * conv->spec.co;
  size_t at = ((size_t) t * a->h + row0) * a->w * conv->spec.co * dp_type_size (type);
  const char *add = a->add ? (const char *) a->add + at : NULL;
  char *y = (char *) a->y + at;

  if (conv->type == type) {
    if (add != NULL && add != y)
      memcpy (y, add, n * dp_type_size (type));
    execute (call, strip, thread, src, y);
  } else {
    float *sum = (float *) ((char *) call->dev->scratch[thread] + call->src_size);

    execute (call, strip, thread, src, sum);
    for (size_t i = 0; i < n; i++)
      ((uint16_t *) y)[i] = to_bf16 (add != NULL ? sum[i] + from_bf16 (((const uint16_t *) add)[i]) : sum[i]);
  }
}

/* A strip through all frames (kt > 1: its rows are copied once for all of them) or through one (kt == 1). */
static void
strip_chunk (void *arg, int chunk, int thread)
{
  Call *call = arg;
  const DpConvArgs *a = call->args;
  const DpConvSpec *spec = &call->conv->spec;
  int index = chunk % call->n_strips, row0 = index * call->rows, first = row0 - spec->kh / 2;
  const Strip *strip = index == call->n_strips - 1 ? call->last : call->whole;
  int rows = strip->rows + spec->kh - 1;
  char *copy = call->dev->scratch[thread];
  size_t size = src_row (call);

  if (spec->kt > 1) {
    for (int t = 0; t < a->t; t++)
      copy_rows (call, t, first, rows, copy + t * rows * size);
    for (int t = 0; t + spec->kt <= a->t; t++)
      run_strip (call, strip, thread, t, row0, copy + t * rows * size);
  } else {
    int t = chunk / call->n_strips;

    if (first >= 0 && first + rows <= a->h && call->conv->type == spec->type) {
      run_strip (call, strip, thread, t, row0, (const char *) a->x + ((size_t) t * a->h + first) * size);
    } else {
      copy_rows (call, t, first, rows, copy);
      run_strip (call, strip, thread, t, row0, copy);
    }
  }
}

/* ---- primitives, made when a shape is first seen ---- */

/* NULL and a latched error when oneDNN has none. */
static dnnl_primitive_desc_t
describe (DpDevice *dev, const DpConv *conv, int rows, int w, bool sum)
{
  const DpConvSpec *s = &conv->spec;
  dnnl_dims_t src_dims = { 1, s->ci, s->kt, rows + s->kh - 1, w }, dst_dims = { 1, s->co, 1, rows, w };
  dnnl_dims_t weight_dims = { s->co, s->ci, s->kt, s->kh, s->kw }, bias_dims = { s->co };
  dnnl_dims_t strides = { 1, 1, 1 }, pads = { 0, 0, s->kw / 2 };
  dnnl_memory_desc_t src, weights, bias, dst;
  dnnl_convolution_desc_t desc;
  dnnl_primitive_attr_t attr = NULL;
  dnnl_post_ops_t post = NULL;
  dnnl_primitive_desc_t pd = NULL;
  bool ok;

  ok = dnnl_memory_desc_init_by_tag (&src, 5, src_dims, dnnl_type (conv->type), dnnl_ndhwc) == dnnl_success
      && dnnl_memory_desc_init_by_tag (&weights, 5, weight_dims, dnnl_type (conv->type), dnnl_format_tag_any) == dnnl_success
      && dnnl_memory_desc_init_by_tag (&bias, 1, bias_dims, dnnl_f32, dnnl_x) == dnnl_success
      && dnnl_memory_desc_init_by_tag (&dst, 5, dst_dims, dnnl_type (conv->type), dnnl_ndhwc) == dnnl_success
      && dnnl_convolution_forward_desc_init (&desc, dnnl_forward_inference, dnnl_convolution_direct, &src, &weights, &bias, &dst,
          strides, pads, pads) == dnnl_success
      && dnnl_primitive_attr_create (&attr) == dnnl_success
      && dnnl_primitive_attr_set_scratchpad_mode (attr, dnnl_scratchpad_mode_user) == dnnl_success
      && (!sum || (dnnl_post_ops_create (&post) == dnnl_success && dnnl_post_ops_append_sum (post, 1) == dnnl_success
          && dnnl_primitive_attr_set_post_ops (attr, post) == dnnl_success))
      && dnnl_primitive_desc_create (&pd, &desc, attr, dp_cpu (dev)->engine, NULL) == dnnl_success;
  if (!ok)
    dp_device_fail (dev, "convolution %d to %d channels, kernel %dx%dx%d: oneDNN cannot do this", s->ci, s->co, s->kt, s->kh, s->kw);
  if (post != NULL)
    dnnl_post_ops_destroy (post);
  if (attr != NULL)
    dnnl_primitive_attr_destroy (attr);
  return pd;
}

/* The weights in layout md: found, or made from `from` in one of the caller's. NULL and a latched error. */
static const Packed *
packed_as (DpDevice *dev, DpConv *conv, const dnnl_memory_desc_t *md, dnnl_memory_t from)
{
  DpDeviceCpu *cpu = dp_cpu (dev);
  Packed *packed;
  const dnnl_memory_desc_t *from_md;
  dnnl_primitive_desc_t pd = NULL;
  dnnl_primitive_t reorder = NULL;
  void *data;
  bool ok;

  for (packed = conv->packed; packed != NULL; packed = packed->next)
    if (dnnl_memory_desc_equal (&packed->md, md))
      return packed;
  packed = dp_host_memory_new (dev, align (sizeof *packed) + dnnl_memory_desc_get_size (md));
  if (packed == NULL) {
    dp_device_fail_memory (dev, "not enough memory for the weights of a convolution");
    return NULL;
  }
  data = (char *) packed + align (sizeof *packed);
  *packed = (Packed) { .md = *md };
  ok = dp_cpu_dnnl_ok (dev, dnnl_memory_create (&packed->memory, md, cpu->engine, data), "weights of a convolution")
      && dp_cpu_dnnl_ok (dev, dnnl_memory_get_memory_desc (from, &from_md), "weights of a convolution")
      && dp_cpu_dnnl_ok (dev, dnnl_reorder_primitive_desc_create (&pd, from_md, cpu->engine, md, cpu->engine, NULL),
          "packing a convolution")
      && dp_cpu_dnnl_ok (dev, dnnl_primitive_create (&reorder, pd), "packing a convolution");
  if (ok) {
    dnnl_exec_arg_t args[] = { { DNNL_ARG_FROM, from }, { DNNL_ARG_TO, packed->memory } };

    ok = dp_cpu_dnnl_ok (dev, dnnl_primitive_execute (reorder, cpu->streams[0], 2, args), "packing a convolution");
  }
  if (reorder != NULL)
    dnnl_primitive_destroy (reorder);
  if (pd != NULL)
    dnnl_primitive_desc_destroy (pd);
  if (!ok) {
    if (packed->memory != NULL)
      dnnl_memory_destroy (packed->memory);
    dp_host_memory_free (dev, packed);
    return NULL;
  }
  packed->next = conv->packed;
  conv->packed = packed;
  return packed;
}

static void
strip_free (DpDevice *dev, Strip *strip)
{
  for (int i = 0; i < dev->threads; i++) {
    dnnl_memory_t all[] = { strip->views[i].src, strip->views[i].dst, strip->views[i].scratchpad };

    for (int k = 0; k < 3; k++)
      if (all[k] != NULL)
        dnnl_memory_destroy (all[k]);
  }
  if (strip->primitive != NULL)
    dnnl_primitive_destroy (strip->primitive);
  dp_host_memory_free (dev, strip);
}

/* Fills a strip from its description. */
static bool
strip_build (DpDevice *dev, DpConv *conv, Strip *strip, const_dnnl_primitive_desc_t pd)
{
  dnnl_engine_t engine = dp_cpu (dev)->engine;
  const dnnl_memory_desc_t *src = dnnl_primitive_desc_query_md (pd, dnnl_query_src_md, 0);
  const dnnl_memory_desc_t *dst = dnnl_primitive_desc_query_md (pd, dnnl_query_dst_md, 0);
  const dnnl_memory_desc_t *weights = dnnl_primitive_desc_query_md (pd, dnnl_query_weights_md, 0);
  const dnnl_memory_desc_t *scratchpad = dnnl_primitive_desc_query_md (pd, dnnl_query_scratchpad_md, 0);

  strip->scratchpad_size = dnnl_memory_desc_get_size (scratchpad);
  strip->packed = packed_as (dev, conv, weights, conv->packed->memory);
  if (strip->packed == NULL || !dp_cpu_dnnl_ok (dev, dnnl_primitive_create (&strip->primitive, pd), "convolution"))
    return false;
  for (int i = 0; i < dev->threads; i++) {
    Views *views = &strip->views[i];

    if (!dp_cpu_dnnl_ok (dev, dnnl_memory_create (&views->src, src, engine, DNNL_MEMORY_NONE), "convolution")
        || !dp_cpu_dnnl_ok (dev, dnnl_memory_create (&views->dst, dst, engine, DNNL_MEMORY_NONE), "convolution")
        || !dp_cpu_dnnl_ok (dev, dnnl_memory_create (&views->scratchpad, scratchpad, engine, DNNL_MEMORY_NONE), "convolution"))
      return false;
  }
  return true;
}

/* Found, or made. NULL and a latched error. */
static const Strip *
strip_for (DpDevice *dev, DpConv *conv, int rows, int w, bool sum)
{
  Strip *strip;
  dnnl_primitive_desc_t pd;
  size_t views_size = dev->threads * sizeof (Views);
  int saved;
  bool ok = false;

  for (strip = conv->strips; strip != NULL; strip = strip->next)
    if (strip->rows == rows && strip->w == w && strip->sum == sum)
      return strip;
  dev->allocations++;
  strip = dp_host_memory_new (dev, align (sizeof *strip) + views_size);
  if (strip == NULL) {
    dp_device_fail_memory (dev, "not enough memory for a convolution");
    return NULL;
  }
  *strip = (Strip) { .rows = rows, .w = w, .sum = sum, .views = (Views *) ((char *) strip + align (sizeof *strip)) };
  memset (strip->views, 0, views_size);
  saved = dp_thread_pool_enter ();
  pd = describe (dev, conv, rows, w, sum);
  if (pd != NULL) {
    ok = strip_build (dev, conv, strip, pd);
    dnnl_primitive_desc_destroy (pd);
  }
  dp_thread_pool_leave (saved);
  if (!ok) {
    strip_free (dev, strip);
    return NULL;
  }
  strip->next = conv->strips;
  conv->strips = strip;
  return strip;
}

/* ---- a layer ---- */

/* Weights [co, ci, kt, kh, kw] into the layout of the nominal shape. */
static bool
pack_dnnl (DpDevice *dev, DpConv *conv, float *weights)
{
  const DpConvSpec *s = &conv->spec;
  DpDeviceCpu *cpu = dp_cpu (dev);
  dnnl_dims_t dims = { s->co, s->ci, s->kt, s->kh, s->kw }, bias_dims = { s->co };
  dnnl_memory_desc_t plain, bias;
  dnnl_memory_t from = NULL;
  dnnl_primitive_desc_t pd = NULL;
  int saved = dp_thread_pool_enter ();
  bool ok;

  dnnl_memory_desc_init_by_tag (&plain, 5, dims, dnnl_f32, dnnl_oidhw);
  dnnl_memory_desc_init_by_tag (&bias, 1, bias_dims, dnnl_f32, dnnl_x);
  ok = dp_cpu_dnnl_ok (dev, dnnl_memory_create (&from, &plain, cpu->engine, weights), "weights of a convolution")
      && dp_cpu_dnnl_ok (dev, dnnl_memory_create (&conv->bias_memory, &bias, cpu->engine, conv->bias), "weights of a convolution")
      && (pd = describe (dev, conv, NOMINAL_ROWS, NOMINAL_W, false)) != NULL
      && packed_as (dev, conv, dnnl_primitive_desc_query_md (pd, dnnl_query_weights_md, 0), from) != NULL;
  if (pd != NULL)
    dnnl_primitive_desc_destroy (pd);
  if (from != NULL)
    dnnl_memory_destroy (from);
  dp_thread_pool_leave (saved);
  return ok;
}

static bool
pack_narrow (DpDevice *dev, DpConv *conv, const float *weights)
{
  bool pairs = conv->spec.type == DP_TYPE_BF16 && conv->table->pairs;

  conv->weights = dp_host_memory_new (dev, conv->table->weights_size (&conv->spec, pairs) * sizeof (float));
  if (conv->weights == NULL)
    return false;
  conv->table->pack (&conv->spec, pairs, weights, conv->weights);
  return true;
}

DpConv *
conv_new_cpu (DpDevice *dev, const DpConvSpec *spec)
{
  DpDeviceCpu *cpu = dp_cpu (dev);
  size_t n = (size_t) spec->co * spec->ci * spec->kt * spec->kh * spec->kw, bias_size = (spec->co + 15) / 16 * 16 * sizeof (float);
  DpConv *conv = dp_host_memory_new (dev, sizeof *conv);
  float *weights = dp_host_memory_new (dev, n * sizeof (float));
  bool ok;

  assert (spec->kt >= 1 && spec->kt <= DP_CONV_MAX_KT && spec->kh % 2 == 1 && spec->kw % 2 == 1);
  dev->allocations++;
  if (conv == NULL || weights == NULL || dp_device_cancelled (dev)) {
    dp_host_memory_free (dev, weights);
    dp_host_memory_free (dev, conv);
    return NULL;
  }
  *conv = (DpConv) {
    .spec = *spec,
    .bias = dp_host_memory_new (dev, bias_size),
    .table = spec->co <= NARROW ? DP_ISA_PICK (cpu->isa, dp_conv_table) : NULL,
    .type = spec->type == DP_TYPE_BF16 && !cpu->dnnl_bf16 ? DP_TYPE_F32 : spec->type,
  };
  if (conv->bias != NULL)
    memset (conv->bias, 0, bias_size);
  ok = conv->bias != NULL
      && (!dp_weight_exists (&spec->bias) || dp_weight_to_f32 (dev, &spec->bias, 0, spec->co, DP_TYPE_F32, conv->bias))
      && dp_weight_to_f32 (dev, &spec->weight, 0, n, spec->type, weights)
      && (conv->table != NULL ? pack_narrow (dev, conv, weights) : pack_dnnl (dev, conv, weights));
  dp_host_memory_free (dev, weights);
  if (!ok) {
    conv_free_cpu (dev, conv);
    return NULL;
  }
  return conv;
}

void
conv_free_cpu (DpDevice *dev, DpConv *conv)
{
  if (conv == NULL)
    return;
  while (conv->strips != NULL) {
    Strip *strip = conv->strips;

    conv->strips = strip->next;
    strip_free (dev, strip);
  }
  while (conv->packed != NULL) {
    Packed *packed = conv->packed;

    conv->packed = packed->next;
    dnnl_memory_destroy (packed->memory);
    dp_host_memory_free (dev, packed);
  }
  if (conv->bias_memory != NULL)
    dnnl_memory_destroy (conv->bias_memory);
  dp_host_memory_free (dev, conv->weights);
  dp_host_memory_free (dev, conv->bias);
  dp_host_memory_free (dev, conv);
}

/* ---- running ---- */

/* Rows of a strip: about 1 / STRIPS of the picture, fewer where with their neighbours they take more than `budget`; a divisor of h
 * where one is near. */
static int
strip_rows (const Call *call, size_t row_bytes, size_t budget)
{
  int h = call->args->h, most = dp_thread_pool_chunks (h, STRIPS), fit = (int) (budget / row_bytes) - call->conv->spec.kh + 1;

  fit = fit > 2 ? fit : 2;
  most = most < fit ? most : fit;
  for (int rows = most; rows > most / 2; rows--)
    if (h % rows == 0)
      return rows;
  return most;
}

static void
narrow_chunk (void *arg, int chunk, int thread)
{
  const Call *call = arg;

  call->conv->table->chunk (&call->job, chunk, call->dev->scratch[thread]);
}

static void
run_narrow (Call *call)
{
  const DpConv *conv = call->conv;
  DpConvJob *job = &call->job;

  *job = (DpConvJob) {
    .spec = &conv->spec,
    .args = call->args,
    .pairs = conv->spec.type == DP_TYPE_BF16 && conv->table->pairs,
    .weights = conv->weights,
    .bias = conv->bias,
  };
  job->lanes = job->pairs ? (conv->spec.ci + 1) / 2 : conv->spec.ci;
  job->pitch = call->args->w + conv->spec.kw / 2;
  job->strip = strip_rows (call, (size_t) conv->spec.kt * job->lanes * job->pitch * sizeof (float), PLANES_BYTES);
  if (!dp_cpu_scratch (call->dev, conv->table->plan (job)))
    return;
  dp_thread_pool_run (call->dev->team, dp_thread_pool_chunks (call->args->h, job->strip), narrow_chunk, call);
}

static void
run_dnnl (Call *call)
{
  DpConv *conv = call->conv;
  DpDevice *dev = &call->dev->base;
  const DpConvArgs *a = call->args;
  bool sum = a->add != NULL && conv->type == conv->spec.type;
  int frames = conv->spec.kt > 1 ? a->t : 1;
  size_t scratchpad;

  call->rows = strip_rows (call, conv->spec.kt * src_row (call), STRIP_BYTES);
  call->n_strips = dp_thread_pool_chunks (a->h, call->rows);
  call->whole = strip_for (dev, conv, call->rows, a->w, sum);
  call->last = strip_for (dev, conv, a->h - (call->n_strips - 1) * call->rows, a->w, sum);
  if (call->whole == NULL || call->last == NULL)
    return;
  call->src_size = align (frames * (call->rows + conv->spec.kh - 1) * src_row (call));
  call->dst_size = conv->type == conv->spec.type ? 0 : align ((size_t) call->rows * a->w * conv->spec.co * sizeof (float));
  scratchpad = call->whole->scratchpad_size > call->last->scratchpad_size ? call->whole->scratchpad_size : call->last->scratchpad_size;
  if (!dp_cpu_scratch (call->dev, call->src_size + call->dst_size + scratchpad))
    return;
  dp_thread_pool_run (call->dev->team, call->n_strips * (conv->spec.kt > 1 ? 1 : a->t), strip_chunk, call);
  if (atomic_load (&call->failed))
    dp_device_fail (dev, "convolution: oneDNN cannot run what it made");
}

void
conv_cpu (DpDevice *dev, DpConv *conv, const DpConvArgs *args)
{
  Call call = { .conv = conv, .args = args, .dev = dp_cpu (dev) };

  if (args->t < conv->spec.kt)
    return;
  if (conv->table != NULL)
    run_narrow (&call);
  else
    run_dnnl (&call);
}
