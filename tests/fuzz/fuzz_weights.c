/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A safetensors file, or with FUZZ_INDEX an index of shards, or with FUZZ_FILE a file of that name, of another format. The first byte of a
 * safetensors file says how many bytes of tensors there are, and the length of the header in front is made to fit, or only that would ever
 * be refused; 255: all is as it comes.
 */
#include "fuzz.h"
#include "engine/wan/weights.h"

#include <string.h>

/* Reads every byte that is promised. */
static void
use_tensor (const DpWeights *weights, const char *name)
{
  const DpTensor *t = dp_weights_find (weights, name);
  gsize n = t ? t->bytes / dp_type_size (t->type) : 0;
  g_autofree float *values = g_new (float, n + 1);
  g_autoptr (GError) error = NULL;

  if (t && !dp_weights_read (weights, t, 0, n, values, &error))
    g_error ("%s", error->message);
}

#ifdef FUZZ_INDEX
static const char *
put (const uint8_t *data, size_t size)
{
  static const char shard[] = "\70\0\0\0\0\0\0\0{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}  " "1234";
  static gboolean prepared;

  if (!prepared)
    fuzz_put ("w.safetensors", shard, sizeof shard - 1);
  prepared = TRUE;
  fuzz_put ("i.safetensors.index.json", data, size);
  return "i";
}
#elif defined FUZZ_FILE
static const char *
put (const uint8_t *data, size_t size)
{
  fuzz_put (FUZZ_FILE, data, size);
  return "w";
}
#else
static const char *
put (const uint8_t *data, size_t size)
{
  g_autofree uint8_t *file = g_malloc (size + 8);
  gsize tensors = size > 0 ? data[0] : 255;
  guint64 header = size - 1 - tensors;

  if (tensors == 255 || tensors >= size) {
    fuzz_put ("w.safetensors", data + 1, MAX (size, 1) - 1);
    return "w";
  }
  memcpy (file, &header, 8);
  memcpy (file + 8, data + 1, size - 1);
  fuzz_put ("w.safetensors", file, size + 7);
  return "w";
}
#endif

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  g_autoptr (GError) error = NULL;
  const char *stem = put (data, size);
  g_autoptr (DpWeights) weights = dp_weights_open (fuzz_dir (), stem, &error);

  fuzz_check_error (weights != NULL, error);
  if (weights)
    for (char name = 'a'; name <= 'h'; name++) {
      use_tensor (weights, (char[]) { name, 0 });
      use_tensor (weights, (char[]) { name, '.', 'w', 'e', 'i', 'g', 'h', 't', 0 });    /* which scales may be of */
    }
  return 0;
}
