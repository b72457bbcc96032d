/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ops_harness.h"
#include "kernels/cpu/cpu.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <time.h>

#define GUARD 256               /* bytes before and behind a matrix */
#define POISON 0xff             /* of guards and padding: as a number it is a NaN */

bool harness_bench;
int harness_failures;
unsigned harness_seed = 1;
int harness_n_devices;
DpDevice *harness_devices[MAX_DEVICES];
const char *harness_filter;
static bool verbose;

static bool
is_gpu (const DpDevice *dev)
{
  return strcmp (dev->ops->name, "cuda") == 0;
}

DpDevice *
harness_gpu (void)
{
  for (int i = 0; i < harness_n_devices; i++)
    if (is_gpu (harness_devices[i]))
      return harness_devices[i];
  return NULL;
}

bool
harness_fp8 (void)
{
  DpDeviceInfo info;
  char error[256];
  bool all = true;

  for (int i = 0; i < harness_n_devices; i++)
    if (strcmp (harness_devices[i]->name, "ref") != 0)
      all = all && dp_device_info (harness_devices[i]->name, &info, error, sizeof error) && info.fp8;
  return all;
}

const char *
type_name (DpType type)
{
  return type == F32 ? "f32" : type == BF16 ? "bf16" : "f16";
}

/* ---- random numbers ---- */

static uint64_t state;

static double
uniform (void)
{
  state += UINT64_C (0x9e3779b97f4a7c15);
  uint64_t z = state;

  z = (z ^ (z >> 30)) * UINT64_C (0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C (0x94d049bb133111eb);
  return ((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

static float
normal (void)
{
  return sqrt (-2 * log (1 - uniform ())) * cos (2 * M_PI * uniform ());
}

/* ---- buffers ---- */

static size_t
span (const Buffer *b)
{
  return ((b->rows - 1) * b->stride + b->cols) * b->size;
}

/* Uploads `host`, the span's bytes, with poison around. */
static Buffer *
new_buffer (Case *c, size_t rows, size_t cols, size_t stride, size_t size, DpType type, const char *host)
{
  Buffer *b = &c->buffers[c->n_buffers];
  size_t bytes;
  char *all;

  if (c->n_buffers++ == MAX_BUFFERS)
    abort ();
  *b = (Buffer) { .dev = c->dev, .rows = rows, .cols = cols, .stride = stride ? stride : cols, .size = size, .type = type };
  bytes = span (b) + 2 * GUARD;
  b->base = c->dev->ops->alloc (c->dev, bytes);
  b->data = b->base + GUARD;
  if (harness_bench && host == NULL && b->base && is_gpu (c->dev))
    return b;
  all = malloc (bytes);
  if (b->base == NULL || all == NULL)
    abort ();
  memset (all, POISON, bytes);
  if (host)
    for (size_t i = 0; i < rows; i++)
      memcpy (all + GUARD + i * b->stride * size, host + i * cols * size, cols * size);
  c->dev->ops->upload (c->dev, b->base, all, bytes);
  free (all);
  return b;
}

#define FRESH 1000003           /* numbers before they repeat */

static char *
draw (size_t n, DpType type, float scale)
{
  size_t size = dp_type_size (type), fresh = n > FRESH ? FRESH : n;
  char *host = malloc (n * size + 1);

  for (size_t i = 0; i < fresh; i++) {
    float f = scale * normal ();

    if (type == DP_TYPE_F16) {
      /* A half whose exponent is that of f or a bit lower: any bits will do for a test. */
      ((uint16_t *) host)[i] = (uint16_t) ((uint32_t) (uniform () * 0x3400) | (f < 0 ? 0x8000 : 0));
    } else {
      dp_store (type, host, i, f);
    }
  }
  for (size_t i = fresh; i < n; i += fresh)
    memcpy (host + i * size, host, (n - i < fresh ? n - i : fresh) * size);
  return host;
}

/* Drawn by the first device that runs the body; the others get the same, in the same order. */
static const char *
random_bytes (Case *c, size_t n, DpType type, float scale)
{
  int i = c->n_used++;

  if (i == c->n_drawn) {
    if (c->n_drawn++ == MAX_DRAWN)
      abort ();
    c->drawn[i].bytes = draw (n, type, scale);
    c->drawn[i].n = n * dp_type_size (type);
  }
  if (c->drawn[i].n != n * dp_type_size (type))
    abort ();
  return c->drawn[i].bytes;
}

static void
forget_drawn (Case *c)
{
  while (c->n_drawn > 0)
    free (c->drawn[--c->n_drawn].bytes);
}

static Buffer *
random_buffer (Case *c, size_t rows, size_t cols, size_t stride, DpType type, float scale)
{
  return new_buffer (c, rows, cols, stride, dp_type_size (type), type, random_bytes (c, rows * cols, type, scale));
}

void *
in (Case *c, size_t rows, size_t cols, size_t stride, DpType type, float scale)
{
  return random_buffer (c, rows, cols, stride, type, scale)->data;
}

void *
in_values (Case *c, size_t rows, size_t cols, DpType type, const float *values)
{
  char *host = malloc (rows * cols * dp_type_size (type));
  Buffer *b;

  for (size_t i = 0; i < rows * cols; i++)
    dp_store (type, host, i, values[i]);
  b = new_buffer (c, rows, cols, 0, dp_type_size (type), type, host);
  free (host);
  return b->data;
}

void *
out (Case *c, size_t rows, size_t cols, size_t stride, DpType type)
{
  Buffer *b = new_buffer (c, rows, cols, stride, dp_type_size (type), type, NULL);

  b->output = true;
  return b->data;
}

void *
out_like (Case *c, size_t rows, size_t cols, size_t stride, DpType type, float scale)
{
  Buffer *b = random_buffer (c, rows, cols, stride, type, scale);

  b->output = true;
  return b->data;
}

void *
out_bytes (Case *c, size_t rows, size_t cols, size_t stride)
{
  Buffer *b = new_buffer (c, rows, cols, stride, 1, DP_TYPE_F32, NULL);

  b->output = b->bytes = true;
  return b->data;
}

const void *
host_random (Case *c, size_t n, DpType type, float scale)
{
  return random_bytes (c, n, type, scale);
}

/* ---- timing ---- */

static double
now (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return ts.tv_sec + ts.tv_nsec * 1e-9;
}

static int
compare_doubles (const void *a, const void *b)
{
  double x = *(const double *) a, y = *(const double *) b;

  return (x > y) - (x < y);
}

/* Goes on for a third of a second or 64 timings; the first is a warm-up unless it is that slow. A GPU is not waited for between
 * calls: a timing is of as many as take some milliseconds, and the first two, of one call each, do not count. */
bool
timing_step (Timing *timing, Case *c)
{
  bool gpu = is_gpu (c->dev);
  double t;
  int n = timing->n, skip = gpu ? 2 : n > 1;

  if (timing->left > 0) {
    timing->left--;
    return true;
  }
  c->dev->ops->sync (c->dev);
  t = now ();
  if (n > 0) {
    timing->times[n - 1] = (t - timing->started) / timing->batch;
    timing->total += t - timing->started;
  }
  if (n == 64 || (n > skip && timing->total > (gpu ? 0.2 : 0.35) && (n >= 4 + skip || timing->times[0] > 0.1))) {
    double *counted = timing->times + skip;

    n -= skip;
    qsort (counted, n, sizeof *counted, compare_doubles);
    c->ms = counted[n / 2] * 1e3;
    c->best_ms = counted[0] * 1e3;
    return false;
  }
  timing->batch = gpu && n >= 2 && timing->times[1] < 5e-3 ? fmin (5e-3 / timing->times[1] + 1, 500) : 1;
  timing->left = timing->batch - 1;
  timing->n++;
  timing->started = now ();
  return true;
}

/* ---- comparing ---- */

static bool
poisoned (const char *bytes, size_t n)
{
  return n == 0 || ((unsigned char) bytes[0] == POISON && memcmp (bytes, bytes + 1, n - 1) == 0);
}

/* Appends an output's numbers to the device's results after looking at what lies around its rows. */
static void
collect (Case *c, const Buffer *b, int device)
{
  size_t bytes = span (b) + 2 * GUARD, at = c->results[device].n, row_bytes = b->cols * b->size, n = b->rows * b->cols;
  char *all = malloc (bytes);
  float *values = realloc (c->results[device].values, (at + n) * sizeof *values);
  const char *data = all + GUARD;

  b->dev->ops->download (b->dev, all, b->base, bytes);
  check (poisoned (all, GUARD), "%s, %s: wrote in front of the output (seed %u)", c->name, b->dev->name, c->seed);
  check (poisoned (data + span (b), GUARD), "%s, %s: wrote behind the output (seed %u)", c->name, b->dev->name, c->seed);
  for (size_t i = 0; i < b->rows; i++) {
    const char *row = data + i * b->stride * b->size;

    if (i + 1 < b->rows && !poisoned (row + row_bytes, (b->stride - b->cols) * b->size)) {
      check (false, "%s, %s: wrote between rows (seed %u)", c->name, b->dev->name, c->seed);
      break;
    }
    for (size_t j = 0; j < b->cols; j++)
      values[at + i * b->cols + j] = b->bytes ? ((const uint8_t *) row)[j] : dp_load (b->type, row, j);
  }
  c->results[device].values = values;
  c->results[device].n = at + n;
  free (all);
}

static void
compare (const Case *c, int device)
{
  const float *y = c->results[device].values, *ref = c->results[0].values;
  const char *name = harness_devices[device]->name;
  double error = 0, norm = 0;
  size_t n = c->results[device].n;

  for (size_t i = 0; i < n; i++) {
    if (!isfinite (y[i])) {
      check (false, "%s, %s: output %zu of %zu is %g, reference %g (seed %u)", c->name, name, i, n, y[i], ref[i], c->seed);
      return;
    }
    error += (double) (y[i] - ref[i]) * (y[i] - ref[i]);
    norm += (double) ref[i] * ref[i];
  }
  /* A handful of values may all but cancel out; then what they were made from, about 1 each, is the measure. */
  norm = n < 16 ? fmax (norm, n) : norm;
  error = sqrt (error / (norm > 0 ? norm : 1));
  check (error <= c->tolerance, "%s, %s: differs from the reference by %.2e, more than %.2e (seed %u)", c->name, name, error,
      c->tolerance, c->seed);
  if (verbose)
    printf ("%-78s %-6s %d thread(s)  %.1e of %.1e\n", c->name, name, harness_devices[device]->threads, error, c->tolerance);
}

/* Two devices of one kind give the same bits, with any number of threads. */
static void
compare_kinds (const Case *c)
{
  for (int i = 1; i < harness_n_devices; i++)
    for (int j = 1; j < i; j++)
      if (strcmp (harness_devices[i]->name, harness_devices[j]->name) == 0)
        check (memcmp (c->results[i].values, c->results[j].values, c->results[i].n * sizeof (float)) == 0,
            "%s, %s: bits depend on the number of threads (%d or %d; seed %u)", c->name, harness_devices[i]->name,
            harness_devices[j]->threads, harness_devices[i]->threads, c->seed);
}

static void
run_body (Case *c, int device, Body body, const void *params)
{
  char error[256];

  c->dev = harness_devices[device];
  state = c->seed;
  body (c, params);
  check (dp_device_check (c->dev, error, sizeof error), "%s, %s: %s", c->name, c->dev->name, error);
  for (int i = 0; i < c->n_buffers; i++) {
    if (c->buffers[i].output && !harness_bench)
      collect (c, &c->buffers[i], device);
    c->dev->ops->free (c->dev, c->buffers[i].base);
  }
  c->n_buffers = c->n_used = 0;
}

/* ---- ceilings: the most that the hardware gives ---- */

static void
copy_body (Case *c, const void *params)
{
  const size_t *n = params;
  void *x = in (c, 1, *n, 0, DP_TYPE_F32, 1), *y = out (c, 1, *n, 0, DP_TYPE_F32);

  if (is_gpu (c->dev))
    RUN (c, c->dev->ops->copy (c->dev, y, x, *n * sizeof (float)));
  else
    RUN (c, c->dev->ops->convert (c->dev, *n, DP_TYPE_F32, x, DP_TYPE_F32, y));
}

static void
matmul_body (Case *c, const void *params)
{
  DpType type = c->type;
  int n = *(const int *) params;
  DpHostWeight weight = { host_random (c, (size_t) n * n, type, 1), type, n };
  DpLinear *linear = c->dev->ops->linear_new (c->dev, &(DpLinearSpec) { .k = n, .type = type, .n_weights = 1, .weights = &weight });
  void *x = in (c, n, n, 0, type, 1), *y = out (c, n, n, 0, type);

  RUN (c, c->dev->ops->linear (c->dev, linear, &(DpLinearArgs) { .rows = n, .x = x, .y = y, .y_type = type }));
  c->dev->ops->linear_free (c->dev, linear);
}

/* oneDNN's own 2048^3 product with its own threads, in GFLOP/s; 0 if it cannot. */
static double
onednn_matmul (DpType type, int threads)
{
  dnnl_data_type_t t = type == DP_TYPE_F32 ? dnnl_f32 : dnnl_bf16;
  dnnl_dims_t dims = { 2048, 2048 };
  dnnl_memory_desc_t plain, any;
  dnnl_matmul_desc_t desc;
  dnnl_primitive_desc_t pd;
  dnnl_primitive_t primitive;
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  dnnl_memory_t x, w, y;
  double best = 1e9;

  omp_set_num_threads (threads);
  dnnl_engine_create (&engine, dnnl_cpu, 0);
  dnnl_stream_create (&stream, engine, dnnl_stream_default_flags);
  dnnl_memory_desc_init_by_tag (&plain, 2, dims, t, dnnl_ab);
  dnnl_memory_desc_init_by_tag (&any, 2, dims, t, dnnl_format_tag_any);
  dnnl_matmul_desc_init (&desc, &plain, &any, NULL, &plain);
  if (dnnl_primitive_desc_create (&pd, &desc, NULL, engine, NULL) != dnnl_success)
    return 0;
  dnnl_primitive_create (&primitive, pd);
  dnnl_memory_create (&x, &plain, engine, DNNL_MEMORY_ALLOCATE);
  dnnl_memory_create (&y, &plain, engine, DNNL_MEMORY_ALLOCATE);
  dnnl_memory_create (&w, dnnl_primitive_desc_query_md (pd, dnnl_query_weights_md, 0), engine, DNNL_MEMORY_ALLOCATE);
  for (int i = 0; i < 8; i++) {
    dnnl_exec_arg_t args[] = { { DNNL_ARG_SRC, x }, { DNNL_ARG_WEIGHTS, w }, { DNNL_ARG_DST, y } };
    double t0 = now ();

    dnnl_primitive_execute (primitive, stream, 3, args);
    best = fmin (best, now () - t0);
  }
  dnnl_memory_destroy (x);
  dnnl_memory_destroy (y);
  dnnl_memory_destroy (w);
  dnnl_primitive_destroy (primitive);
  dnnl_primitive_desc_destroy (pd);
  dnnl_stream_destroy (stream);
  dnnl_engine_destroy (engine);
  return 2 * pow (2048, 3) / best * 1e-9;
}

static double matmul_ceiling[2], copy_ceiling;  /* GFLOP/s by type, GB/s */

static void
measure_ceilings (int device)
{
  DpDevice *dev = harness_devices[device];
  Case copy = { .seed = 1 };
  int n = is_gpu (dev) ? 8192 : 4096;
  size_t floats = is_gpu (dev) ? 256 << 20 : 32 << 20;

  for (DpType type = DP_TYPE_F32; type <= DP_TYPE_BF16; type++) {
    Case c = { .seed = 1, .type = type };

    if (strcmp (dev->ops->name, "cpu") == 0) {
      matmul_ceiling[type] = onednn_matmul (type, dev->threads);
    } else {
      run_body (&c, device, matmul_body, &n);
      forget_drawn (&c);
      matmul_ceiling[type] = 2 * pow (n, 3) / c.best_ms * 1e-6;
    }
  }
  run_body (&copy, device, copy_body, &floats);
  forget_drawn (&copy);
  copy_ceiling = 2.0 * 4 * floats / copy.best_ms * 1e-6;
  printf ("device %s, %d thread(s); ceilings: matmul f32 %.0f GFLOP/s, bf16 %.0f GFLOP/s; copy %.1f GB/s (in memory; "
      "what fits a cache may exceed it)\n", dev->name, dev->threads, matmul_ceiling[0], matmul_ceiling[1], copy_ceiling);
  printf ("%-62s %10s %10s %12s %8s %8s\n", "op", "median ms", "best ms", "best", "ceiling", "x ref");
}

/* The reference is not asked for the sizes a GPU is for. */
static void
bench_case (Case *c, Body body, const void *params)
{
  int last = harness_n_devices - 1;
  bool ref = !is_gpu (harness_devices[last]), flops = c->flops > 0;
  double ref_ms = 0, rate, ceiling;

  if (ref)
    run_body (c, 0, body, params);
  ref_ms = c->best_ms;
  run_body (c, last, body, params);
  rate = (flops ? c->flops : c->bytes) / c->best_ms * 1e-6;
  ceiling = flops ? matmul_ceiling[c->type] : copy_ceiling;
  printf ("%-62s %10.4f %10.4f %7.1f %s %7.0f%%", c->name, c->ms, c->best_ms, ref ? rate : rate * 1e-3,
      flops ? ref ? "GF/s" : "TF/s" : ref ? "GB/s" : "TB/s", 100 * rate / ceiling);
  if (ref)
    printf (" %8.0f", ref_ms / c->best_ms);
  printf ("\n");
  fflush (stdout);
}

void
run_case (Case *c, Body body, const void *params)
{
  static unsigned count;

  c->seed = harness_seed + count++;
  if (harness_filter && strstr (c->name, harness_filter) == NULL)
    return;
  if (harness_bench) {
    bench_case (c, body, params);
    forget_drawn (c);
    return;
  }
  for (int i = 0; i < harness_n_devices; i++) {
    run_body (c, i, body, params);
    compare (c, i);
  }
  compare_kinds (c);
  for (int i = 0; i < harness_n_devices; i++)
    free (c->results[i].values);
  memset (c->results, 0, sizeof c->results);
  forget_drawn (c);
}

static bool
open_device (const char *name, int threads)
{
  char error[256];
  DpDeviceInfo info;
  DpDevice *dev = dp_device_open (name, threads, error, sizeof error);

  if (dev == NULL) {
    printf ("cannot open %s: %s\n", name, error);
    return false;
  }
  harness_devices[harness_n_devices++] = dev;
  if (harness_gpu () == dev && dp_device_info (name, &info, error, sizeof error))
    printf ("%s: %s; %s; %.1f of %.1f GiB free\n", name, info.description, info.libraries, info.memory_free / 1073741824.0,
        info.memory_total / 1073741824.0);
  return true;
}

/* Two of the same GPU have to agree to the bits. */
static bool
open_gpu (const char *name)
{
  return open_device (name, 0) && open_device (name, 0);
}

/* The cpu device as a lesser processor has it. */
static bool
open_lesser (DpIsa isa, const char *name)
{
  DpDevice *dev;

  if (!open_device ("cpu", 1))
    return false;
  dev = harness_devices[harness_n_devices - 1];
  snprintf (dev->name, sizeof dev->name, "%s", name);
  dp_cpu (dev)->isa = isa;
  dp_cpu (dev)->dnnl_bf16 = false;
  return true;
}

static bool
open_lessers (void)
{
#if defined (__x86_64__)
  DpDeviceCpu *best = dp_cpu (harness_devices[harness_n_devices - 1]);

  if (best->isa >= DP_ISA_AVX2 && !open_lesser (DP_ISA_AVX2, "cpu-avx2"))
    return false;
#endif
  return open_lesser (DP_ISA_BASE, "cpu-base");
}

static bool
open_devices (const char *device, int threads)
{
  DpDeviceInfo info;
  char error[256];

  if (!open_device ("ref", 1))
    return false;
  if (harness_bench) {
    if (!open_device (device ? device : "cpu", threads))
      return false;
    measure_ceilings (1);
    return true;
  }
  if (device)
    return strncmp (device, "cuda:", 5) == 0 ? open_gpu (device) : open_device (device, threads);
  if (!open_device ("cpu", 1) || !open_device ("cpu", threads ? threads : 2) || !open_lessers ())
    return false;
  if (dp_device_info ("cuda:0", &info, error, sizeof error))
    return open_gpu ("cuda:0");
  printf ("skipped: %s\n", error);
  return true;
}

bool
harness_open (int argc, char **argv, int *status)
{
  const char *device = NULL;
  int threads = 0;

  *status = 1;
  for (int i = 1; i < argc; i++) {
    if (strcmp (argv[i], "--bench") == 0)
      harness_bench = true;
    else if (strcmp (argv[i], "--verbose") == 0)
      verbose = true;
    else if (strcmp (argv[i], "--seed") == 0 && i + 1 < argc)
      harness_seed = strtoul (argv[++i], NULL, 0);
    else if (strcmp (argv[i], "--device") == 0 && i + 1 < argc)
      device = argv[++i];
    else if (strcmp (argv[i], "--threads") == 0 && i + 1 < argc)
      threads = atoi (argv[++i]);
    else if (strcmp (argv[i], "--filter") == 0 && i + 1 < argc)
      harness_filter = argv[++i];
    else {
      printf ("usage: %s [--bench] [--device NAME] [--threads N] [--seed N] [--filter PART_OF_A_NAME] [--verbose]\n", argv[0]);
      return false;
    }
  }
  printf ("seed %u\n", harness_seed);
  if (open_devices (device, threads))
    return true;
  /* A GPU that was asked for and is not there is a skip, as automake has it. */
  if (device && strncmp (device, "cuda:", 5) == 0)
    *status = 77;
  harness_close ();
  return false;
}

void
harness_close (void)
{
  while (harness_n_devices > 0) {
    DpDevice *dev = harness_devices[--harness_n_devices];

    check (dev->bytes == 0 || strcmp (dev->ops->name, "ref") != 0, "%s still holds %zu bytes", dev->name, dev->bytes);
    dp_device_close (dev);
  }
}
