/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What rank 0 sends to the others when a ring opens.
 */
#include "fuzz.h"
#include "engine/agreement.h"

#include <string.h>

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  g_autofree char *text = g_strndup ((const char *) data, size);
  g_autoptr (GStringChunk) storage = g_string_chunk_new (256);
  g_autoptr (GError) error = NULL, differs = NULL;
  DpHalves cuts[DP_MAX_STAGES][2];
  DpSettings settings;
  int stages;

  gboolean ok = dp_agreement_read (text, &settings, &stages, cuts, storage, &error);
  if (ok) {
    g_assert_true (stages >= 2 && stages <= DP_MAX_STAGES);
    for (int i = 0; i < stages; i++)
      g_assert_true (cuts[i][0].first >= 0 && cuts[i][0].first < cuts[i][0].last);
  }
  fuzz_check_error (ok, error);
  ok = dp_agreement_check (text, "[ring]\nversion=1\nmodel=m\n", &differs);
  fuzz_check_error (ok, differs);
  return 0;
}
