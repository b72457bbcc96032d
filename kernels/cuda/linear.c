/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Shapes: L rows, K input features, N output features. cuBLASLt thinks in columns: for it W is [K, N] to be transposed, x is [K, L] and
 * y is [N, L], so a "row" of its result is a feature, which is what bias and the vector alpha (our gate) run along.
 *
 * One algorithm per layer shape, types, strides and ending, whatever L is: the first in the order of the library's heuristics for ROWS
 * rows that does not split K. It takes the K steps of an element in one order, so a row's bits do not depend on L or on the row's
 * place, and nothing is timed, so they do not depend on the run. (The library promises this of one kind of GPU and one version of
 * itself; that L does not matter is not promised, but tested.)
 *
 * With fp8 both sides are e4m3, each row with its own scale: a row of W for good when it is packed, a row of x as it comes. The library
 * multiplies the scales back in; the gate goes in with those of W.
 */
#include "linear.h"
#include "quantize.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS 32768              /* what algorithms are chosen for: about 81 frames of 480x832 */
#define CANDIDATES 16
#define STAGING ((size_t) 32 << 20)     /* front of the workspace: products to be finished (they stay in the L2 of large chips) */
#define BLAS_WORKSPACE ((size_t) 32 << 20)      /* behind it */

struct DpLinear
{
  int k, n;
  DpType type;                  /* of x */
  bool fp8;
  void *weights;                /* [N, K]; one allocation with what follows */
  float *inverse;               /* [N], of the scales of the rows of e4m3 weights, or NULL */
  float *bias;                  /* [N], or NULL */
  void *bias16;                 /* [N], the same as bfloat16 in a layer of that type, or NULL */
};

/* How a product ends. */
typedef enum
{
  STORE,                        /* y = x W + b */
  GELU,                         /* y = gelu (x W + b), y bfloat16: the library's is not exact enough for float32 */
  ADD,                          /* y += x W + b */
  GATED_ADD,                    /* y += gate * (x W) + b; b comes multiplied. In bfloat16 W comes multiplied too and it is an ADD */
} Ending;

/* No padding: keys are compared as bytes. */
typedef struct
{
  int k, n, type, fp8, y_type, x_stride, y_stride, x_align, y_align, ending, bias;
} Key;

struct DpProduct
{
  struct DpProduct *next;
  Key key;
  bool available;               /* false: the library has nothing for this */
  cublasLtMatmulDesc_t desc;
  cublasLtMatmulAlgo_t algo;
  cudaDataType_t bias_type;
};

typedef struct DpProduct DpProduct;

static cudaDataType_t
data_type (int type)
{
  return type == DP_TYPE_F32 ? CUDA_R_32F : CUDA_R_16BF;
}

/* Of W and x as they are multiplied. */
static cudaDataType_t
factor_type (const Key *key)
{
  return key->fp8 ? CUDA_R_8F_E4M3 : data_type (key->type);
}

static size_t
factor_size (const Key *key)
{
  return key->fp8 ? 1 : dp_type_size (key->type);
}

/* The largest power of two, up to 16, that divides pointer and stride in bytes. */
static int
alignment (const void *ptr, size_t stride)
{
  size_t bits = (size_t) ptr | stride | 16;

  return bits & -bits;
}

/* ---- algorithms ---- */

typedef struct
{
  cublasLtMatrixLayoutOpaque_t w, x, y;
} Layouts;

static bool
lay_out (const Key *key, int rows, Layouts *l)
{
  return cublasLtMatrixLayoutInit (&l->w, factor_type (key), key->k, key->n, key->k) == CUBLAS_STATUS_SUCCESS
      && cublasLtMatrixLayoutInit (&l->x, factor_type (key), key->k, rows, key->x_stride) == CUBLAS_STATUS_SUCCESS
      && cublasLtMatrixLayoutInit (&l->y, data_type (key->y_type), key->n, rows, key->y_stride) == CUBLAS_STATUS_SUCCESS;
}

static bool
set (cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t name, int32_t value)
{
  return cublasLtMatmulDescSetAttribute (desc, name, &value, sizeof value) == CUBLAS_STATUS_SUCCESS;
}

static bool
set_pointer (cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t name, const void *pointer)
{
  return cublasLtMatmulDescSetAttribute (desc, name, &pointer, sizeof pointer) == CUBLAS_STATUS_SUCCESS;
}

/* The heuristics look at the pointers too: they start as the workspace, which is aligned as every vector is. */
static cublasLtMatmulDesc_t
describe (DpDeviceCuda *dev, const Key *key, cudaDataType_t bias_type)
{
  cublasLtMatmulDesc_t desc;
  cublasLtEpilogue_t epilogue = key->ending == GELU ? key->bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU
      : key->bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;

  if (cublasLtMatmulDescCreate (&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) != CUBLAS_STATUS_SUCCESS)
    return NULL;
  if (set (desc, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T) && set (desc, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue)
      && (!key->bias || (set (desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, bias_type)
              && set_pointer (desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, dev->workspace)))
      && (!key->fp8 || (set (desc, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F)
              && set (desc, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F)
              && set_pointer (desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, dev->workspace)
              && set_pointer (desc, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, dev->workspace)))
      && (key->ending != GATED_ADD || set (desc, CUBLASLT_MATMUL_DESC_POINTER_MODE, CUBLASLT_POINTER_MODE_ALPHA_DEVICE_VECTOR_BETA_HOST)))
    return desc;
  cublasLtMatmulDescDestroy (desc);
  return NULL;
}

static bool
set_preference (cublasLtMatmulPreference_t preference, const Key *key)
{
  const struct
  {
    cublasLtMatmulPreferenceAttributes_t name;
    uint32_t value;
  } attributes[] = {
    { CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, CUBLASLT_REDUCTION_SCHEME_NONE },
    { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment (NULL, key->k * factor_size (key)) },
    { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key->x_align },
    { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key->y_align },
    { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key->y_align },
  };
  size_t workspace = BLAS_WORKSPACE;

  for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++)
    if (cublasLtMatmulPreferenceSetAttribute (preference, attributes[i].name, &attributes[i].value, sizeof (uint32_t)))
      return false;
  return !cublasLtMatmulPreferenceSetAttribute (preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
}

/* Whether the algorithm adds up each element in one go, for few rows as for many. */
static bool
is_fit (DpDeviceCuda *dev, const DpProduct *product, const cublasLtMatmulAlgo_t *algo)
{
  static const int rows[] = { 1, 7, 512, ROWS };
  int32_t split = 1;
  uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_NONE;

  cublasLtMatmulAlgoConfigGetAttribute (algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &split, sizeof split, NULL);
  cublasLtMatmulAlgoConfigGetAttribute (algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &reduction, sizeof reduction, NULL);
  if (split > 1 || reduction != CUBLASLT_REDUCTION_SCHEME_NONE)
    return false;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    cublasLtMatmulHeuristicResult_t result;
    Layouts l;

    if (!lay_out (&product->key, rows[i], &l)
        || cublasLtMatmulAlgoCheck (dev->blas, product->desc, &l.w, &l.x, &l.y, &l.y, algo, &result) != CUBLAS_STATUS_SUCCESS
        || result.workspaceSize > BLAS_WORKSPACE)
      return false;
  }
  return true;
}

/* Sets the product's algorithm; false if the library has none that fits. */
static bool
choose (DpDeviceCuda *dev, DpProduct *product)
{
  cublasLtMatmulHeuristicResult_t results[CANDIDATES];
  cublasLtMatmulPreference_t preference = NULL;
  Layouts l;
  int n = 0;
  bool found = false;

  if (lay_out (&product->key, ROWS, &l) && cublasLtMatmulPreferenceCreate (&preference) == CUBLAS_STATUS_SUCCESS
      && set_preference (preference, &product->key)
      && cublasLtMatmulAlgoGetHeuristic (dev->blas, product->desc, &l.w, &l.x, &l.y, &l.y, preference, CANDIDATES, results, &n)
          != CUBLAS_STATUS_SUCCESS)
    n = 0;
  for (int i = 0; i < n && !found; i++)
    if (results[i].state == CUBLAS_STATUS_SUCCESS && is_fit (dev, product, &results[i].algo)) {
      product->algo = results[i].algo;
      found = true;
    }
  if (preference)
    cublasLtMatmulPreferenceDestroy (preference);
  return found;
}

/* The product of this key, made on first use. NULL if there is none, or an error is latched. */
static DpProduct *
find_product (DpDeviceCuda *dev, const Key *key)
{
  static const cudaDataType_t bias_types[] = { CUDA_R_32F, CUDA_R_16BF };
  int first = key->fp8, n = key->fp8 || (key->bias && key->y_type == DP_TYPE_BF16) ? 2 : 1;
  DpProduct *product;

  for (product = dev->products; product; product = product->next)
    if (memcmp (&product->key, key, sizeof *key) == 0)
      return product->available ? product : NULL;
  product = calloc (1, sizeof *product);
  if (product == NULL) {
    dp_device_fail_memory (&dev->base, "linear: not enough memory");
    return NULL;
  }
  dev->base.allocations++;
  product->key = *key;
  for (int i = first; i < n && !product->available; i++) {
    product->bias_type = bias_types[i];
    product->desc = describe (dev, key, bias_types[i]);
    product->available = product->desc && choose (dev, product);
    if (product->desc && !product->available) {
      cublasLtMatmulDescDestroy (product->desc);
      product->desc = NULL;
    }
  }
  product->next = dev->products;
  dev->products = product;
  return product->available ? product : NULL;
}

void
linear_close_cuda (DpDeviceCuda *dev)
{
  while (dev->products) {
    DpProduct *product = dev->products;

    dev->products = product->next;
    if (product->desc)
      cublasLtMatmulDescDestroy (product->desc);
    free (product);
  }
}

/* ---- packing ---- */

/* The pieces one behind the other, as the spec's type. */
static bool
upload_weights (DpDeviceCuda *dev, const DpLinearSpec *spec, char *to)
{
  for (int i = 0; i < spec->n_weights; i++) {
    size_t n = (size_t) spec->weights[i].rows * spec->k;

    if (!dp_cuda_upload_weight (dev, &spec->weights[i], n, spec->type, to))
      return false;
    to += n * dp_type_size (spec->type);
  }
  return true;
}

static bool
upload_rounded (DpDeviceCuda *dev, DpLinear *linear, const DpLinearSpec *spec)
{
  void *staged = dp_cuda_memory_new (dev, (size_t) linear->n * linear->k * dp_type_size (spec->type), "rounding a linear layer");
  bool ok = staged && upload_weights (dev, spec, staged);

  if (ok)
    dp_cuda_round_rows (dev, linear->n, linear->k, staged, linear->k, linear->weights, linear->inverse);
  dp_cuda_memory_free (dev, staged);
  return ok;
}

static bool
upload_pieces (DpDeviceCuda *dev, DpLinear *linear, const DpLinearSpec *spec)
{
  float *biases;
  bool ok;

  if (!(linear->fp8 ? upload_rounded (dev, linear, spec) : upload_weights (dev, spec, linear->weights)))
    return false;
  if (linear->bias == NULL)
    return true;
  biases = malloc (linear->n * sizeof *biases);
  if (biases == NULL)
    return false;
  ok = dp_linear_biases (&dev->base, spec, biases)
      && dp_cuda_upload_weight (dev, &(DpHostWeight) { biases, DP_TYPE_F32, linear->n }, linear->n, DP_TYPE_F32, linear->bias)
      && (linear->bias16 == NULL
          || dp_cuda_upload_weight (dev, &(DpHostWeight) { biases, DP_TYPE_F32, linear->n }, linear->n, DP_TYPE_BF16, linear->bias16));
  free (biases);
  return ok;
}

static size_t
round_up (size_t bytes)
{
  return (bytes + 255) / 256 * 256;
}

DpLinear *
linear_new_cuda (DpDevice *base, const DpLinearSpec *spec)
{
  DpDeviceCuda *dev = dp_cuda (base);
  DpLinear *linear = calloc (1, sizeof *linear);
  int n = dp_linear_rows (spec);
  bool fp8 = spec->fp8 && spec->k % 16 == 0 && n % 16 == 0;
  size_t weights = round_up ((size_t) n * spec->k * (fp8 ? 1 : dp_type_size (spec->type)));
  size_t inverse = fp8 ? round_up (n * sizeof (float)) : 0, bias = spec->biases ? round_up (n * sizeof (float)) : 0;
  size_t bias16 = spec->biases && spec->type == DP_TYPE_BF16 ? round_up (n * 2) : 0;
  char *memory;

  base->allocations++;
  if (linear == NULL)
    return NULL;
  assert (!spec->fp8 || dev->capability == DP_CUDA_FP8);
  memory = dp_cuda_memory_new (dev, weights + inverse + bias + bias16, "a linear layer");
  *linear = (DpLinear) {
    .k = spec->k, .n = n, .type = spec->type, .fp8 = fp8, .weights = memory, .inverse = fp8 ? (float *) (memory + weights) : NULL,
    .bias = bias ? (float *) (memory + weights + inverse) : NULL, .bias16 = bias16 ? memory + weights + inverse + bias : NULL,
  };
  if (memory == NULL || !linear_refill_cuda (base, linear, spec)) {
    linear_free_cuda (base, linear);
    return NULL;
  }
  return linear;
}

bool
linear_refill_cuda (DpDevice *base, DpLinear *linear, const DpLinearSpec *spec)
{
  assert (linear->k == spec->k && linear->n == dp_linear_rows (spec) && linear->type == spec->type && !linear->bias == !spec->biases);
  return upload_pieces (dp_cuda (base), linear, spec) || dp_device_cancelled (base);
}

void
linear_free_cuda (DpDevice *dev, DpLinear *linear)
{
  if (linear == NULL)
    return;
  dp_cuda_memory_free (dp_cuda (dev), linear->weights);
  free (linear);
}

/* ---- running ---- */

/* What a product takes besides its shape. */
typedef struct
{
  const void *x, *weights;
  const float *bias;            /* NULL without; ignored where the product takes bias16 */
  const void *bias16;
  const float *gate;            /* of GATED_ADD */
  const float *inverse, *x_inverse;     /* of the scales of rows, with fp8 */
} Factors;

static bool
multiply (DpDeviceCuda *dev, const DpProduct *product, const Factors *f, int rows, void *y)
{
  const Key *key = &product->key;
  float one = 1, zero = 0;
  const void *b = product->bias_type == CUDA_R_32F ? (const void *) f->bias : f->bias16;
  Layouts l;
  cublasStatus_t status = CUBLAS_STATUS_INVALID_VALUE;

  if (lay_out (key, rows, &l) && (!key->bias || set_pointer (product->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, b))
      && (!key->fp8 || (set_pointer (product->desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, f->inverse)
              && set_pointer (product->desc, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, f->x_inverse))))
    status = cublasLtMatmul (dev->blas, product->desc, f->gate ? f->gate : &one, f->weights, &l.w, f->x, &l.x,
        key->ending == ADD || key->ending == GATED_ADD ? &one : &zero, y, &l.y, y, &l.y, &product->algo, (char *) dev->workspace + STAGING,
        BLAS_WORKSPACE, dev->stream);
  return dp_cuda_blas_ok (dev, status, "linear");
}

static Ending
ending_of (const DpLinearArgs *a)
{
  return a->accumulate ? a->gate ? GATED_ADD : ADD : a->act == DP_ACT_GELU_TANH ? GELU : STORE;
}

/* The library ends the product itself, if it can. */
static bool
run_whole (DpDeviceCuda *dev, const DpLinear *linear, const DpLinearArgs *a)
{
  Key key = {
    .k = linear->k, .n = linear->n, .type = linear->type, .y_type = a->y_type, .x_stride = a->x_stride, .y_stride = a->y_stride,
    .x_align = alignment (a->x, a->x_stride * dp_type_size (linear->type)),
    .y_align = alignment (a->y, a->y_stride * dp_type_size (a->y_type)), .ending = ending_of (a), .bias = linear->bias != NULL,
  };
  Factors f = { .x = a->x, .weights = linear->weights, .bias = linear->bias, .bias16 = linear->bias16, .gate = a->gate };
  size_t gated = a->gate && linear->type == DP_TYPE_BF16 ? (size_t) linear->n * linear->k * 2 : 0;
  char *workspace = dp_cuda_workspace (dev, STAGING + BLAS_WORKSPACE + gated);
  DpProduct *product;

  if (a->act == DP_ACT_SILU || (a->act == DP_ACT_GELU_TANH && a->y_type == DP_TYPE_F32) || linear->n * sizeof (float) > STAGING)
    return false;
  if (gated)
    key.ending = ADD;
  product = workspace ? find_product (dev, &key) : NULL;
  if (product == NULL)
    return false;
  if (a->gate && f.bias) {
    multiply_cuda (&dev->base, linear->n, DP_TYPE_F32, f.bias, a->gate, (float *) workspace);
    f.bias = (float *) workspace;
  }
  if (gated) {                  /* the library's products with a vector for alpha take half as long again, on an H200 up to twice */
    dp_linear_gate (dev, linear->n, linear->k, linear->weights, a->gate, workspace + STAGING + BLAS_WORKSPACE);
    f.weights = workspace + STAGING + BLAS_WORKSPACE;
    f.gate = NULL;
  }
  multiply (dev, product, &f, a->rows, a->y);
  return true;
}

/* The product of an fp8 layer: x is rounded behind the scratch of the others. */
static void
run_fp8 (DpDeviceCuda *dev, const DpLinear *linear, const DpLinearArgs *a)
{
  Key key = {
    .k = linear->k, .n = linear->n, .type = linear->type, .fp8 = true, .y_type = a->y_type, .x_stride = linear->k, .y_stride = a->y_stride,
    .x_align = 16, .y_align = alignment (a->y, a->y_stride * dp_type_size (a->y_type)),
    .ending = a->accumulate ? ADD : ending_of (a), .bias = linear->bias != NULL,
  };
  size_t x_size = round_up ((size_t) a->rows * linear->k), inverses = round_up (a->rows * sizeof (float));
  char *workspace = dp_cuda_workspace (dev, STAGING + BLAS_WORKSPACE + x_size + inverses), *x = workspace + STAGING + BLAS_WORKSPACE;
  Factors f = { .x = x, .weights = linear->weights, .bias16 = linear->bias16, .inverse = linear->inverse,
      .x_inverse = (float *) (x + x_size) };
  DpProduct *product = workspace ? find_product (dev, &key) : NULL;

  if (product == NULL) {
    dp_device_fail (&dev->base, "%s: linear: cuBLASLt has no algorithm for %d -> %d features in e4m3", dev->base.name, linear->k,
        linear->n);
    return;
  }
  dp_cuda_round_rows (dev, a->rows, linear->k, a->x, a->x_stride, x, (float *) (x + x_size));
  if (a->gate) {
    f.inverse = (float *) workspace;
    dp_cuda_gate_rows (dev, linear->n, linear->inverse, linear->bias16, a->gate, (float *) workspace,
        workspace + round_up (linear->n * sizeof (float)));
    f.bias16 = workspace + round_up (linear->n * sizeof (float));
  }
  multiply (dev, product, &f, a->rows, a->y);
}

/* A piece of the product at a time in float32, finished by an own kernel. */
static void
run_staged (DpDeviceCuda *dev, const DpLinear *linear, const DpLinearArgs *a)
{
  Key key = {
    .k = linear->k, .n = linear->n, .type = linear->type, .y_type = DP_TYPE_F32, .x_stride = a->x_stride, .y_stride = linear->n,
    .x_align = alignment (a->x, a->x_stride * dp_type_size (linear->type)),
    .y_align = alignment (dev->workspace, linear->n * sizeof (float)), .ending = STORE,
  };
  size_t fit = STAGING / (linear->n * sizeof (float));
  int rows = fit > 128 ? fit / 128 * 128 : fit;
  DpProduct *product = find_product (dev, &key);

  if (product == NULL || rows == 0) {
    dp_device_fail (&dev->base, "%s: linear: cuBLASLt has no algorithm for %d -> %d features", dev->base.name, linear->k, linear->n);
    return;
  }
  for (int row = 0; row < a->rows; row += rows) {
    DpLinearArgs part = *a;

    part.rows = a->rows - row < rows ? a->rows - row : rows;
    part.x = (const char *) a->x + (size_t) row * a->x_stride * dp_type_size (linear->type);
    part.y = (char *) a->y + (size_t) row * a->y_stride * dp_type_size (a->y_type);
    if (!multiply (dev, product, &(Factors) { .x = part.x, .weights = linear->weights }, part.rows, dev->workspace))
      return;
    dp_linear_finish (dev, linear->n, dev->workspace, linear->bias, &part);
  }
}

void
linear_cuda (DpDevice *base, const DpLinear *linear, const DpLinearArgs *given)
{
  DpDeviceCuda *dev = dp_cuda (base);
  DpLinearArgs args = *given;

  assert (!args.accumulate || (args.y_type == DP_TYPE_F32 && args.act == DP_ACT_NONE));
  if (args.rows == 0 || !dp_cuda_enter (dev) || dp_cuda_workspace (dev, STAGING + BLAS_WORKSPACE) == NULL)
    return;
  args.x_stride = args.x_stride ? args.x_stride : linear->k;
  args.y_stride = args.y_stride ? args.y_stride : linear->n;
  if (linear->fp8)
    run_fp8 (dev, linear, &args);
  else if (!run_whole (dev, linear, &args))
    run_staged (dev, linear, &args);
}
