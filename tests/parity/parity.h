/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * parity.h: what the parity tests share: fixtures (a json file and a safetensors file per case), comparison, models.
 *
 * Everything here ends the test program on failure (g_assert), except the comparisons, which fail the test and go on so
 * that all errors of a case are seen. NaN is never within a tolerance.
 */
#pragma once

#include <glib.h>
#include <json-glib/json-glib.h>
#include "wan/model_config.h"
#include "wan/weights.h"
#include "kernels/device.h"

/** One case of make_fixtures.py. Thread-safety: one thread at a time. */
typedef struct
{
  JsonParser *parser;
  JsonObject *settings;         /* the parser's */
  DpWeights *tensors;
} ParityCase;

ParityCase *parity_case_open (const char *group, const char *name);
void parity_case_free (ParityCase *c);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (ParityCase, parity_case_free)

int parity_int (const ParityCase *c, const char *key);

/** Tensor by printf-style name as new float32s; its elements in *n and its dims in dims[8] (each may be NULL). */
float *parity_tensor (const ParityCase *c, gsize *n, gint64 *dims, const char *format, ...) G_GNUC_PRINTF (4, 5);

/** [c, L, h, w] -> new [L, h, w, c]. */
float *parity_channels_last (const float *x, int c, gsize L, int h, int w);
/** A channels-first tensor of the case as new channels-last floats; dims as in the file. */
float *parity_video (const ParityCase *c, gint64 *dims, const char *name);

/** ||got - want|| / ||want||. */
double parity_rel_l2 (const float *got, const float *want, gsize n);
/** Prints it, and fails the test unless the error is within `tol`. */
void parity_check (const char *what, const float *got, const float *want, gsize n, double tol);
/** Likewise with an error that was measured elsewhere. */
void parity_check_error (const char *what, double error, double tol);
/** Fails the test unless a and b are the same bytes. */
void parity_check_same (const char *what, const void *a, const void *b, gsize bytes);

/** A model directory of the fixtures. Thread-safety: one thread at a time. */
typedef struct
{
  char *dir;
  DpModelConfig config;
} ParityModel;

ParityModel *parity_model_open (const char *name);
void parity_model_free (ParityModel *model);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (ParityModel, parity_model_free)
/** The weights of a part: "transformer", "text_encoder", "vae". */
DpWeights *parity_model_weights (const ParityModel *model, const char *part);
char *parity_model_dir (const char *name);

DpDevice *parity_device_open (const char *name);
/** n floats on the device: a copy of `host`, or (NULL) undefined. */
float *parity_upload (DpDevice *dev, const float *host, gsize n);
/** n floats of the device, new. */
float *parity_download (DpDevice *dev, const float *ptr, gsize n);
/** Fails the program on a latched error, then closes. */
void parity_device_close (DpDevice *dev);

/** Adds `function` once per name as PREFIX/NAME with the name as its data. The list ends with NULL. */
void parity_add (const char *prefix, GTestDataFunc function, const char *const *names);
