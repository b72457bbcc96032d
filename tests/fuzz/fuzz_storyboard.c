/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A storyboard, as subtitles.
 */
#include "fuzz.h"
#include "gst/gstdualparalstoryboard.h"

#include <string.h>

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GArray) cues = gst_dualparal_storyboard_parse ((const char *) data, size, &error);
  guint64 time = 0;

  fuzz_check_error (cues != NULL, error);
  for (guint i = 0; cues && i < cues->len; i++) {
    const GstDualParalCue *cue = &g_array_index (cues, GstDualParalCue, i);

    g_assert_cmpuint (cue->time, >=, time);
    g_assert_true (*cue->prompt && g_utf8_validate (cue->prompt, -1, NULL) && strchr (cue->prompt, '\n') == NULL);
    time = cue->time + 1;
  }
  return 0;
}
