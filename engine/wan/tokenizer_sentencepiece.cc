/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tokenizer_sentencepiece.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <memory>
#include <vector>
#include <sentencepiece_processor.h>

struct DpSpm
{
  sentencepiece::SentencePieceProcessor processor;
};

DpSpm *
dp_spm_open (const void *data, size_t size, char *error, size_t error_size)
{
  try {
    auto spm = std::make_unique<DpSpm> ();
    const auto status = spm->processor.LoadFromSerializedProto (absl::string_view (static_cast<const char *> (data), size));

    if (status.ok ())
      return spm.release ();
    std::snprintf (error, error_size, "%s", status.error_message ());
  } catch (const std::exception &e) {
    std::snprintf (error, error_size, "%s", e.what ());
  } catch (...) {
    std::snprintf (error, error_size, "unknown exception");
  }
  return nullptr;
}

void
dp_spm_free (DpSpm *spm)
{
  delete spm;
}

int
dp_spm_pieces (const DpSpm *spm)
{
  return spm->processor.GetPieceSize ();
}

int
dp_spm_eos (const DpSpm *spm)
{
  return spm->processor.eos_id ();
}

int
dp_spm_encode (const DpSpm *spm, const char *text, size_t length, int32_t *ids, int max)
{
  try {
    std::vector<int> all;

    if (!spm->processor.Encode (absl::string_view (text, length), &all).ok ())
      return -1;
    const int n = static_cast<int> (std::min<size_t> (all.size (), static_cast<size_t> (max)));
    std::copy (all.begin (), all.begin () + n, ids);
    return n;
  } catch (...) {
    return -1;
  }
}
