/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A SentencePiece model, which then splits a text.
 */
#include "fuzz.h"
#include "engine/wan/tokenizer.h"

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (DpTokenizer) tokenizer = NULL;
  gint32 ids[16];

  fuzz_put ("spiece.model", data, size);
  tokenizer = dp_tokenizer_open (fuzz_dir (), 100, &error);
  fuzz_check_error (tokenizer != NULL, error);
  if (tokenizer == NULL)
    return 0;
  int n = dp_tokenizer_encode (tokenizer, "a Red \303\251 ball\357\274\201", ids, G_N_ELEMENTS (ids), &error);
  fuzz_check_error (n >= 0, error);
  for (int i = 0; i < n; i++)
    g_assert_true (ids[i] >= 0 && ids[i] < 100);
  return 0;
}
