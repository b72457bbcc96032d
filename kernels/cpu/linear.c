/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Shapes: L rows, K input features, N output features, cut into panels of P.
 *
 * A row's bits may not depend on the rows beside it, so every chunk must add up K in the same order. A chunk of 64 rows is one
 * primitive; the rows left over are taken by primitives of 16, 4 and 1 rows if oneDNN has a kernel here that works row by row
 * (brgemm: AVX-512), and a trial shows that these give the bits of the full one. Else a short chunk is padded to a full one.
 *
 * oneDNN's fast matmul takes dense rows and no epilogue that reads more than the bias; with anything else it silently falls back to
 * one that is tens or thousands of times slower. So the primitives are all dense, and a chunk whose x or y is not goes through the
 * thread's scratch, where it stays in the cache: rows gathered before, spread, converted or added to y after.
 */
#include "linear.h"
#include "pointwise.h"
#include "../numeric.h"

#include <assert.h>
#include <stdlib.h>

#define ROWS 64                 /* of a chunk */
#define PANEL 1024              /* most output features of a chunk */
#define SIZES 4
#define ALONE (1 << 21)         /* multiplications that are done before a helper has woken up */

static const int sizes[SIZES] = { ROWS, 16, 4, 1 };

/* One oneDNN primitive and, for each thread, memory objects to hang pointers into. */
typedef struct
{
  dnnl_primitive_t primitive;
  bool brgemm;                  /* of the family that works row by row */
  size_t scratchpad;            /* bytes */
  struct PrimitiveMemory
  {
    dnnl_memory_t x, y, scratchpad;
  } *memory;                    /* [threads] */
} Primitive;

/* What a product is found by; ints only, so that memcmp compares it. */
typedef struct
{
  int k, n;
  int type, y_type;             /* DpType; of packed weights and x, and of what comes out */
  int act;
} Key;

typedef struct DpProduct
{
  Key key;
  bool exact;                   /* all sizes give the same bits; else only the first is there */
  Primitive primitives[SIZES];  /* by sizes[] */
  struct DpProduct *next;
} DpProduct;

typedef struct
{
  int first, n;                 /* output features [first, first + n) */
  dnnl_memory_desc_t layout;
  void *packed;
  dnnl_memory_t weights, bias;
} Panel;

struct DpLinear
{
  int k, n;
  DpType type;                  /* of x */
  DpType packed_type;           /* of the weights and of what the primitives see as x */
  int n_panels, panel_width;    /* the last may be narrower */
  Panel *panels;
  float *biases;                /* [N], zeros if the layer has none */
};

static size_t
round_up (size_t n)
{
  return (n + 63) & ~(size_t) 63;
}

static dnnl_data_type_t
dnnl_type (int type)
{
  return type == DP_TYPE_F32 ? dnnl_f32 : dnnl_bf16;
}

/* ---- primitives ---- */

static void
free_primitive (DpDeviceCpu *dev, Primitive *p)
{
  for (int i = 0; p->memory && i < dev->base.threads; i++) {
    dnnl_memory_destroy (p->memory[i].x);
    dnnl_memory_destroy (p->memory[i].y);
    dnnl_memory_destroy (p->memory[i].scratchpad);
  }
  free (p->memory);
  if (p->primitive)
    dnnl_primitive_destroy (p->primitive);
  *p = (Primitive) { 0 };
}

static dnnl_status_t
set_activation (dnnl_primitive_attr_t attr, int act)
{
  dnnl_post_ops_t ops;
  dnnl_status_t status;

  if (act == DP_ACT_NONE)
    return dnnl_success;
  if ((status = dnnl_post_ops_create (&ops)) != dnnl_success)
    return status;
  if (act == DP_ACT_GELU_TANH)
    status = dnnl_post_ops_append_eltwise (ops, 1, dnnl_eltwise_gelu_tanh, 0, 0);
  else
    status = dnnl_post_ops_append_eltwise (ops, 1, dnnl_eltwise_swish, 1, 0);
  if (status == dnnl_success)
    status = dnnl_primitive_attr_set_post_ops (attr, ops);
  dnnl_post_ops_destroy (ops);
  return status;
}

/* Descriptor of a product of m rows; `layout` NULL lets oneDNN choose that of the weights. */
static dnnl_status_t
describe (DpDeviceCpu *dev, const Key *key, int m, const dnnl_memory_desc_t *layout, dnnl_primitive_desc_t *desc)
{
  dnnl_memory_desc_t x, w, b, y;
  dnnl_matmul_desc_t matmul;
  dnnl_primitive_attr_t attr = NULL;
  dnnl_dims_t x_dims = { m, key->k }, w_dims = { key->k, key->n }, b_dims = { 1, key->n }, y_dims = { m, key->n };
  dnnl_status_t status;

  if ((status = dnnl_memory_desc_init_by_tag (&x, 2, x_dims, dnnl_type (key->type), dnnl_ab)) != dnnl_success
      || (status = dnnl_memory_desc_init_by_tag (&b, 2, b_dims, dnnl_f32, dnnl_ab)) != dnnl_success
      || (status = dnnl_memory_desc_init_by_tag (&y, 2, y_dims, dnnl_type (key->y_type), dnnl_ab)) != dnnl_success)
    return status;
  if (layout)
    w = *layout;
  else if ((status = dnnl_memory_desc_init_by_tag (&w, 2, w_dims, dnnl_type (key->type), dnnl_format_tag_any)) != dnnl_success)
    return status;
  if ((status = dnnl_matmul_desc_init (&matmul, &x, &w, &b, &y)) == dnnl_success
      && (status = dnnl_primitive_attr_create (&attr)) == dnnl_success
      && (status = dnnl_primitive_attr_set_scratchpad_mode (attr, dnnl_scratchpad_mode_user)) == dnnl_success
      && (status = set_activation (attr, key->act)) == dnnl_success)
    status = dnnl_primitive_desc_create (desc, &matmul, attr, dev->engine, NULL);
  dnnl_primitive_attr_destroy (attr);
  return status;
}

static dnnl_status_t
create_memories (DpDeviceCpu *dev, Primitive *p, const_dnnl_primitive_desc_t desc)
{
  const dnnl_memory_desc_t *x = dnnl_primitive_desc_query_md (desc, dnnl_query_src_md, 0);
  const dnnl_memory_desc_t *y = dnnl_primitive_desc_query_md (desc, dnnl_query_dst_md, 0);
  const dnnl_memory_desc_t *scratchpad = dnnl_primitive_desc_query_md (desc, dnnl_query_scratchpad_md, 0);
  dnnl_status_t status = dnnl_success;

  p->scratchpad = dnnl_memory_desc_get_size (scratchpad);
  p->memory = calloc (dev->base.threads, sizeof *p->memory);
  if (p->memory == NULL)
    return dnnl_out_of_memory;
  for (int i = 0; i < dev->base.threads && status == dnnl_success; i++) {
    struct PrimitiveMemory *m = &p->memory[i];

    if ((status = dnnl_memory_create (&m->x, x, dev->engine, DNNL_MEMORY_NONE)) == dnnl_success
        && (status = dnnl_memory_create (&m->y, y, dev->engine, DNNL_MEMORY_NONE)) == dnnl_success)
      status = dnnl_memory_create (&m->scratchpad, scratchpad, dev->engine, DNNL_MEMORY_NONE);
  }
  return status;
}

static dnnl_status_t
create_primitive (DpDeviceCpu *dev, const Key *key, int m, const dnnl_memory_desc_t *layout, Primitive *p)
{
  dnnl_primitive_desc_t desc;
  const char *info = "";
  dnnl_status_t status = describe (dev, key, m, layout, &desc);

  if (status != dnnl_success)
    return status;
  dnnl_primitive_desc_query (desc, dnnl_query_impl_info_str, 0, &info);
  p->brgemm = strncmp (info, "brg", 3) == 0;
  if ((status = dnnl_primitive_create (&p->primitive, desc)) == dnnl_success)
    status = create_memories (dev, p, desc);
  dnnl_primitive_desc_destroy (desc);
  dev->base.allocations++;
  return status;
}

/* One primitive on one panel; `scratchpad` is the thread's. */
static dnnl_status_t
execute (DpDeviceCpu *dev, const Primitive *p, const Panel *panel, const void *x, void *y, void *scratchpad, int thread)
{
  const struct PrimitiveMemory *m = &p->memory[thread];
  dnnl_exec_arg_t args[] = {
    { DNNL_ARG_SRC, m->x }, { DNNL_ARG_WEIGHTS, panel->weights }, { DNNL_ARG_BIAS, panel->bias }, { DNNL_ARG_DST, m->y },
    { DNNL_ARG_SCRATCHPAD, m->scratchpad },
  };
  dnnl_status_t status;

  if ((status = dnnl_memory_set_data_handle (m->x, (void *) x)) != dnnl_success
      || (status = dnnl_memory_set_data_handle (m->y, y)) != dnnl_success
      || (status = dnnl_memory_set_data_handle (m->scratchpad, scratchpad)) != dnnl_success)
    return status;
  return dnnl_primitive_execute (p->primitive, dev->streams[thread], 5, args);
}

/* ---- products ---- */

static void
free_product (DpDeviceCpu *dev, DpProduct *product)
{
  for (int i = 0; i < SIZES; i++)
    free_primitive (dev, &product->primitives[i]);
  free (product);
}

void
linear_close_cpu (DpDeviceCpu *dev)
{
  while (dev->products) {
    DpProduct *product = dev->products;

    dev->products = product->next;
    free_product (dev, product);
  }
}

/* Numbers in -1 .. 1 with full mantissas: any other order of adding them up shows. */
static void
fill (DpType type, void *data, size_t n)
{
  uint32_t state = 1;

  for (size_t i = 0; i < n; i++) {
    state = state * 1664525 + 1013904223;
    dp_store (type, data, i, (int32_t) state * 0x1p-31f);
  }
}

/* Whether each smaller primitive gives the bits of the full one; out of memory counts as no. */
static bool
sizes_agree (DpDeviceCpu *dev, const DpProduct *product, const Panel *panel)
{
  const Key *key = &product->key;
  size_t y_row = key->n * dp_type_size (key->y_type), y_bytes = round_up (ROWS * y_row), scratchpad = 0;
  char *x = aligned_alloc (64, round_up (ROWS * (size_t) key->k * dp_type_size (key->type)));
  char *y = aligned_alloc (64, 2 * y_bytes);
  void *scratch = NULL;
  bool agree = false;

  for (int i = 0; i < SIZES; i++)
    scratchpad = product->primitives[i].scratchpad > scratchpad ? product->primitives[i].scratchpad : scratchpad;
  scratch = aligned_alloc (64, round_up (scratchpad + 1));
  if (x == NULL || y == NULL || scratch == NULL)
    goto out;
  fill (key->type, x, (size_t) ROWS * key->k);
  for (int i = 0; i < SIZES; i++) {
    char *result = y + (i > 0 ? y_bytes : 0);

    if (!product->primitives[i].brgemm || execute (dev, &product->primitives[i], panel, x, result, scratch, 0) != dnnl_success
        || memcmp (result, y, sizes[i] * y_row) != 0)
      goto out;
  }
  agree = true;

out:
  free (x);
  free (y);
  free (scratch);
  return agree;
}

/* Fills in the primitives of a new product; false with an error latched. */
static bool
build_product (DpDeviceCpu *dev, const Panel *panel, DpProduct *product)
{
  for (int i = 0; i < SIZES; i++)
    if (!dp_cpu_dnnl_ok (&dev->base, create_primitive (dev, &product->key, sizes[i], &panel->layout, &product->primitives[i]), "linear"))
      return false;
  product->exact = sizes_agree (dev, product, panel);
  for (int i = 1; i < SIZES && !product->exact; i++)
    free_primitive (dev, &product->primitives[i]);
  return true;
}

/* The product for a panel of this layer under these arguments, made on first use. NULL with an error latched. */
static const DpProduct *
find_product (DpDeviceCpu *dev, const DpLinear *linear, const Panel *panel, const DpLinearArgs *args)
{
  /* What is summed up, or not bfloat16 to begin with, leaves the product as float32. */
  Key key = {
    .k = linear->k, .n = panel->n, .type = linear->packed_type, .act = args->act,
    .y_type = linear->packed_type == DP_TYPE_F32 ? DP_TYPE_F32 : args->y_type,
  };
  DpProduct *product;
  int saved;
  bool ok;

  for (product = dev->products; product; product = product->next)
    if (memcmp (&product->key, &key, sizeof key) == 0)
      return product;
  product = calloc (1, sizeof *product);
  if (product == NULL) {
    dp_device_fail_memory (&dev->base, "linear: not enough memory");
    return NULL;
  }
  product->key = key;
  saved = dp_thread_pool_enter ();
  ok = build_product (dev, panel, product);
  dp_thread_pool_leave (saved);
  if (!ok) {
    free_product (dev, product);
    return NULL;
  }
  product->next = dev->products;
  dev->products = product;
  return product;
}

/* ---- packing ---- */

typedef struct
{
  DpDeviceCpu *dev;
  DpLinear *linear;
  const DpLinearSpec *spec;
  dnnl_status_t *statuses;      /* [panels] */
} PackJob;

/* Output features [first, first + n) of the stacked pieces, as float32 or, with `raw`, as they lie in the file. */
static bool
gather_rows (DpDevice *dev, const DpLinearSpec *spec, int first, int n, bool raw, void *dst)
{
  for (int i = 0; i < spec->n_weights && n > 0; i++) {
    const DpHostWeight *piece = &spec->weights[i];
    size_t at, count;
    int rows;

    if (first >= piece->rows) {
      first -= piece->rows;
      continue;
    }
    rows = piece->rows - first < n ? piece->rows - first : n;
    at = (size_t) first * spec->k;
    count = (size_t) rows * spec->k;
    if (!(raw ? dp_weight_read (dev, piece, at, count, dst) : dp_weight_to_f32 (dev, piece, at, count, spec->type, dst)))
      return false;
    dst = (char *) dst + count * (raw ? dp_type_size (piece->type) : sizeof (float));
    n -= rows;
    first = 0;
  }
  return true;
}

/* Whether all pieces are of the packed type, so that no number has to be converted. */
static bool
is_raw (const DpLinearSpec *spec, DpType packed_type)
{
  bool raw = spec->type == packed_type;

  for (int i = 0; i < spec->n_weights; i++)
    raw = raw && spec->weights[i].type == packed_type;
  return raw;
}

static dnnl_status_t
reorder (DpDeviceCpu *dev, dnnl_memory_t from, const dnnl_memory_desc_t *from_desc, Panel *panel, int thread)
{
  dnnl_primitive_desc_t desc;
  dnnl_primitive_t primitive;
  dnnl_exec_arg_t args[] = { { DNNL_ARG_FROM, from }, { DNNL_ARG_TO, panel->weights } };
  dnnl_status_t status = dnnl_reorder_primitive_desc_create (&desc, from_desc, dev->engine, &panel->layout, dev->engine, NULL);

  if (status != dnnl_success)
    return status;
  status = dnnl_primitive_create (&primitive, desc);
  dnnl_primitive_desc_destroy (desc);
  if (status != dnnl_success)
    return status;
  status = dnnl_primitive_execute (primitive, dev->streams[thread], 2, args);
  dnnl_primitive_destroy (primitive);
  return status;
}

static void
pack_chunk (void *arg, int chunk, int thread)
{
  PackJob *job = arg;
  Panel *panel = &job->linear->panels[chunk];
  int k = job->linear->k;
  DpType packed_type = job->linear->packed_type;
  bool raw = is_raw (job->spec, packed_type);
  void *rows = malloc ((size_t) panel->n * k * (raw ? dp_type_size (packed_type) : sizeof (float)));
  dnnl_dims_t dims = { k, panel->n }, strides = { 1, k };
  dnnl_memory_desc_t desc;
  dnnl_memory_t from = NULL;
  dnnl_status_t status = rows ? dnnl_success : dnnl_out_of_memory;

  /* If this fails, the device says so. */
  if (rows && gather_rows (&job->dev->base, job->spec, panel->first, panel->n, raw, rows)
      && (status = dnnl_memory_desc_init_by_strides (&desc, 2, dims, raw ? dnnl_type (packed_type) : dnnl_f32, strides)) == dnnl_success
      && (status = dnnl_memory_create (&from, &desc, job->dev->engine, rows)) == dnnl_success)
    status = reorder (job->dev, from, &desc, panel, thread);
  dnnl_memory_destroy (from);
  free (rows);
  job->statuses[chunk] = status;
}

/* Asks oneDNN for the layout of each panel and makes its memory. */
static bool
lay_out_panels (DpDeviceCpu *dev, DpLinear *linear)
{
  for (int i = 0; i < linear->n_panels; i++) {
    Panel *panel = &linear->panels[i];
    dnnl_primitive_desc_t desc;
    dnnl_dims_t b_dims = { 1, 0 };
    dnnl_memory_desc_t bias;
    Key key;

    panel->first = i * linear->panel_width;
    panel->n = linear->n - panel->first < linear->panel_width ? linear->n - panel->first : linear->panel_width;
    key = (Key) { .k = linear->k, .n = panel->n, .type = linear->packed_type };
    if (!dp_cpu_dnnl_ok (&dev->base, describe (dev, &key, ROWS, NULL, &desc), "linear"))
      return false;
    panel->layout = *dnnl_primitive_desc_query_md (desc, dnnl_query_weights_md, 0);
    dnnl_primitive_desc_destroy (desc);
    panel->packed = dp_host_memory_new (&dev->base, dnnl_memory_desc_get_size (&panel->layout));
    if (panel->packed == NULL)
      return false;
    b_dims[1] = panel->n;
    if (!dp_cpu_dnnl_ok (&dev->base, dnnl_memory_create (&panel->weights, &panel->layout, dev->engine, panel->packed), "linear")
        || !dp_cpu_dnnl_ok (&dev->base, dnnl_memory_desc_init_by_tag (&bias, 2, b_dims, dnnl_f32, dnnl_ab), "linear")
        || !dp_cpu_dnnl_ok (&dev->base, dnnl_memory_create (&panel->bias, &bias, dev->engine, linear->biases + panel->first), "linear"))
      return false;
  }
  return true;
}

bool
linear_refill_cpu (DpDevice *base, DpLinear *linear, const DpLinearSpec *spec)
{
  DpDeviceCpu *dev = dp_cpu (base);
  dnnl_status_t *statuses = calloc (linear->n_panels, sizeof *statuses);
  PackJob job = { dev, linear, spec, statuses };
  bool ok = true;

  assert (linear->k == spec->k && linear->n == dp_linear_rows (spec) && linear->type == spec->type);
  if (statuses == NULL || !dp_linear_biases (base, spec, linear->biases)) {
    free (statuses);
    return false;
  }
  dp_thread_pool_run (dev->team, linear->n_panels, pack_chunk, &job);
  for (int i = 0; i < linear->n_panels && ok; i++)
    ok = dp_cpu_dnnl_ok (base, statuses[i], "packing a linear layer");
  ok = ok && !dp_device_failed (base);
  free (statuses);
  return ok;
}

DpLinear *
linear_new_cpu (DpDevice *base, const DpLinearSpec *spec)
{
  DpDeviceCpu *dev = dp_cpu (base);
  DpLinear *linear = calloc (1, sizeof *linear);
  int saved;
  bool ok;

  assert (!spec->fp8);
  base->allocations++;
  if (linear == NULL)
    return NULL;
  linear->k = spec->k;
  linear->n = dp_linear_rows (spec);
  linear->type = spec->type;
  linear->packed_type = spec->type == DP_TYPE_BF16 && !dev->dnnl_bf16 ? DP_TYPE_F32 : spec->type;
  /* Panels of about the same width, in whole cache lines. */
  linear->n_panels = dp_thread_pool_chunks (linear->n, PANEL);
  linear->panel_width = round_up (dp_thread_pool_chunks (linear->n, linear->n_panels));
  linear->n_panels = dp_thread_pool_chunks (linear->n, linear->panel_width);
  linear->panels = calloc (linear->n_panels, sizeof *linear->panels);
  linear->biases = dp_host_memory_new (base, linear->n * sizeof (float));
  if (linear->panels == NULL || linear->biases == NULL) {
    linear_free_cpu (base, linear);
    return NULL;
  }
  saved = dp_thread_pool_enter ();
  ok = lay_out_panels (dev, linear);
  dp_thread_pool_leave (saved);
  if (!ok || !linear_refill_cpu (base, linear, spec)) {
    linear_free_cpu (base, linear);
    return NULL;
  }
  return linear;
}

void
linear_free_cpu (DpDevice *dev, DpLinear *linear)
{
  if (linear == NULL)
    return;
  for (int i = 0; linear->panels && i < linear->n_panels; i++) {
    dnnl_memory_destroy (linear->panels[i].weights);
    dnnl_memory_destroy (linear->panels[i].bias);
    dp_host_memory_free (dev, linear->panels[i].packed);
  }
  dp_host_memory_free (dev, linear->biases);
  free (linear->panels);
  free (linear);
}

/* ---- running ---- */

typedef struct
{
  DpDeviceCpu *dev;
  const DpPointwise *pointwise;
  const DpLinear *linear;
  const DpLinearArgs *args;
  const DpProduct *products[2]; /* of the full panels and of the last */
  int row_chunks;
  size_t x_scratch, y_scratch;  /* where copies of x and y lie in a thread's scratch; the scratchpad is in front */
  _Atomic dnnl_status_t status; /* the last failure */
} LinearJob;

/* The chunk's rows of x as the primitives want them. */
static const void *
gather (const LinearJob *job, const DpProduct *product, int row, int rows, char *scratch)
{
  const DpLinearArgs *a = job->args;
  size_t k = job->linear->k, size = dp_type_size (product->key.type);
  const char *x = (const char *) a->x + (size_t) row * a->x_stride * dp_type_size (job->linear->type);

  if ((size_t) a->x_stride == k && product->key.type == (int) job->linear->type && (product->exact || rows == ROWS))
    return x;
  scratch += job->x_scratch;
  for (int i = 0; i < rows; i++, x += a->x_stride * dp_type_size (job->linear->type))
    job->pointwise->convert_row (k, job->linear->type, x, product->key.type, scratch + i * k * size);
  if (!product->exact)
    memset (scratch + rows * k * size, 0, (ROWS - rows) * k * size);
  return scratch;
}

/* The chunk's results, from scratch to y. */
static void
spread (const LinearJob *job, const DpProduct *product, const Panel *panel, int row, int rows, const char *scratch)
{
  const DpLinearArgs *a = job->args;
  size_t size = dp_type_size (product->key.y_type);

  for (int i = 0; i < rows; i++, scratch += panel->n * size) {
    size_t at = (size_t) (row + i) * a->y_stride + panel->first;

    if (a->accumulate)
      job->pointwise->accumulate_row (panel->n, (const float *) scratch, a->gate ? a->gate + panel->first : NULL, (float *) a->y + at);
    else
      job->pointwise->convert_row (panel->n, product->key.y_type, scratch, a->y_type, (char *) a->y + at * dp_type_size (a->y_type));
  }
}

static void
linear_chunk (void *arg, int chunk, int thread)
{
  LinearJob *job = arg;
  const DpLinearArgs *a = job->args;
  int index = chunk / job->row_chunks, row = chunk % job->row_chunks * ROWS, rows = a->rows - row < ROWS ? a->rows - row : ROWS;
  const Panel *panel = &job->linear->panels[index];
  const DpProduct *product = job->products[index == job->linear->n_panels - 1];
  const Key *key = &product->key;
  char *scratch = job->dev->scratch[thread];
  const char *x = gather (job, product, row, rows, scratch);
  char *y = (char *) a->y + (size_t) row * a->y_stride * dp_type_size (a->y_type), *at;
  bool direct = !a->accumulate && a->y_stride == key->n && (int) a->y_type == key->y_type && (product->exact || rows == ROWS);

  at = direct ? y : (y = scratch + job->y_scratch);
  for (int i = 0, left = product->exact ? rows : ROWS; i < SIZES; i++)
    for (; left >= sizes[i]; left -= sizes[i]) {
      dnnl_status_t status = execute (job->dev, &product->primitives[i], panel, x, at, scratch, thread);

      if (status != dnnl_success)
        job->status = status;
      x += (size_t) sizes[i] * key->k * dp_type_size (key->type);
      at += (size_t) sizes[i] * key->n * dp_type_size (key->y_type);
    }
  if (!direct)
    spread (job, product, panel, row, rows, y);
}

static void
all_chunks (void *arg, int chunk, int thread)
{
  LinearJob *job = arg;

  for (int i = 0; i < job->linear->n_panels * job->row_chunks; i++)
    linear_chunk (job, i, thread);
}

/* A thread's scratch: the larger scratchpad, then room for copies of 64 rows of x and of y. */
static bool
reserve_scratch (LinearJob *job)
{
  size_t scratchpad = 0;

  for (int i = 0; i < 2; i++)
    for (int j = 0; j < SIZES; j++)
      if (job->products[i]->primitives[j].scratchpad > scratchpad)
        scratchpad = job->products[i]->primitives[j].scratchpad;
  job->x_scratch = round_up (scratchpad);
  job->y_scratch = job->x_scratch + round_up (ROWS * (size_t) job->linear->k * dp_type_size (job->linear->packed_type));
  return dp_cpu_scratch (job->dev, job->y_scratch + (size_t) ROWS * job->linear->panel_width * sizeof (float));
}

void
linear_cpu (DpDevice *base, const DpLinear *linear, const DpLinearArgs *given)
{
  DpLinearArgs args = *given;
  LinearJob job = {
    .dev = dp_cpu (base), .pointwise = DP_ISA_PICK (dp_cpu (base)->isa, dp_pointwise), .linear = linear, .args = &args,
    .row_chunks = dp_thread_pool_chunks (args.rows, ROWS),
  };

  assert (!args.accumulate || (args.y_type == DP_TYPE_F32 && args.act == DP_ACT_NONE));
  if (args.rows == 0)
    return;
  args.x_stride = args.x_stride ? args.x_stride : linear->k;
  args.y_stride = args.y_stride ? args.y_stride : linear->n;
  job.products[0] = find_product (job.dev, linear, &linear->panels[0], &args);
  job.products[1] = find_product (job.dev, linear, &linear->panels[linear->n_panels - 1], &args);
  if (job.products[0] == NULL || job.products[1] == NULL || !reserve_scratch (&job))
    return;
  if ((size_t) args.rows * linear->k * linear->n <= ALONE)
    dp_thread_pool_run (job.dev->team, 1, all_chunks, &job);
  else
    dp_thread_pool_run (job.dev->team, linear->n_panels * job.row_chunks, linear_chunk, &job);
  dp_cpu_dnnl_ok (base, job.status, "linear");
}
