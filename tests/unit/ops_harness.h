/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * ops_harness.h: runs one op on every backend and compares.
 *
 * A case is a body that makes its buffers with in() and out(), then calls the op inside RUN. The harness runs the body once for
 * every device ("ref" first) with the same random numbers, and checks each output: finite, close to the reference's, nothing
 * written outside its rows. Devices that differ in their number of threads only must agree bit for bit. With --bench the same
 * body is timed instead. All test-side failures are counted, none stops the run.
 */
#pragma once

#include "kernels/device.h"
#include "kernels/numeric.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define F32 DP_TYPE_F32
#define BF16 DP_TYPE_BF16
#define LENGTH(array) (sizeof (array) / sizeof *(array))

#define MAX_BUFFERS 24
#define MAX_DRAWN 48
#define MAX_DEVICES 8

/** A matrix on a device between two guard zones, with padding between its rows. */
typedef struct
{
  DpDevice *dev;
  char *base;                   /* start of the front guard */
  void *data;                   /* what the op gets */
  size_t rows, cols, stride;    /* in elements */
  size_t size;                  /* of an element in bytes */
  DpType type;
  bool bytes;                   /* elements are bytes, not numbers of `type` */
  bool output;
} Buffer;

/** What a case is and what came of it. */
typedef struct
{
  char name[160];
  unsigned seed;
  double tolerance;             /* of ||y - ref|| / ||ref||; 0: the bits must agree */
  double flops, bytes;          /* of one call, for --bench */
  DpType type;                  /* whose matmul is the ceiling */

  /* -- of the running body */
  DpDevice *dev;
  int n_buffers;
  Buffer buffers[MAX_BUFFERS];
  int n_used;                   /* of `drawn` */
  double ms, best_ms;           /* --bench: median and least of the calls */

  /* -- random numbers, the same for each device */
  int n_drawn;
  struct
  {
    char *bytes;
    size_t n;
  } drawn[MAX_DRAWN];

  /* -- results of each device */
  struct
  {
    float *values;
    size_t n;
  } results[MAX_DEVICES];
} Case;

typedef void (*Body) (Case *c, const void *params);

/** Repeats a statement while timing it with --bench; runs it once otherwise. */
#define RUN(c, call) \
  do { \
    if (!harness_bench) { \
      call; \
    } else { \
      Timing timing_ = { 0 }; \
      while (timing_step (&timing_, c)) \
        call; \
    } \
  } while (0)

typedef struct
{
  int n, batch, left;           /* timings so far; calls in the running one, and of those to come */
  double started, total, times[64];
} Timing;

bool timing_step (Timing *timing, Case *c);

extern bool harness_bench;
extern int harness_failures;
extern unsigned harness_seed;
extern int harness_n_devices;
extern DpDevice *harness_devices[MAX_DEVICES];
extern const char *harness_filter;      /* only cases whose name contains it, or NULL; the properties are left out then */

/** The first device that is a GPU, or NULL. */
DpDevice *harness_gpu (void);

/** "f32" and so on. */
const char *type_name (DpType type);

/** Whether all devices beside the reference have fp8. */
bool harness_fp8 (void);

/** Device matrix of random normal numbers times `scale`; what lies around its rows is NaN. stride 0: dense. */
void *in (Case *c, size_t rows, size_t cols, size_t stride, DpType type, float scale);

/** Device matrix holding the given numbers. */
void *in_values (Case *c, size_t rows, size_t cols, DpType type, const float *values);

/** Device matrix the op fills: NaN before, so that what it forgets shows. out_like() starts with random numbers instead (for
 *  ops that add to y); out_bytes() is for pixels. */
void *out (Case *c, size_t rows, size_t cols, size_t stride, DpType type);
void *out_like (Case *c, size_t rows, size_t cols, size_t stride, DpType type, float scale);
void *out_bytes (Case *c, size_t rows, size_t cols, size_t stride);

/** Host array of random numbers, as a weight of a file. Lives as long as the case. */
const void *host_random (Case *c, size_t n, DpType type, float scale);

/** Runs a body everywhere, compares, prints a line on failure (or the bench table's line). */
void run_case (Case *c, Body body, const void *params);

/** Counts a failure and says where unless the condition holds; write it so that a NaN fails. */
#define check(condition, ...) \
  do { \
    if (!(condition)) { \
      harness_failures++; \
      printf ("FAIL %s:%d: ", __FILE__, __LINE__); \
      printf (__VA_ARGS__); \
      printf ("\n"); \
    } \
  } while (0)

/** Opens the devices: "ref", then "cpu" with 1 and 2 threads, it again with the vector code of lesser processors, and "cuda:0" twice if
 *  there is one (a line says why not); or the one of --device NAME, a GPU twice. With --bench "ref" and one cpu of all processors, or
 *  the one of --device. False: exit with *status. */
bool harness_open (int argc, char **argv, int *status);
void harness_close (void);
