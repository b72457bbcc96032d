/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * agreement.h: what all ranks of a ring must agree on, as text: version, model, settings.
 *
 * Rank 0 writes it of its plan and sends it. Every other rank reads the settings in it, makes its own
 * plan of them and its own model, writes the text of that, and compares: what differs has a name. Of
 * weights the text has the sizes of all files with the first and last 64 KiB of each.
 */
#pragma once

#include "plan.h"

/** The text of a plan: lines "key=value". New string; NULL with `error` when a file of the model cannot be read. */
char *dp_agreement_new (const DpPlan *plan, GError **error);

/** The settings that a text has, those a stage needs; strings are kept in `storage`. *stages: how many;
 *  cuts [DP_MAX_STAGES]: their layers. */
gboolean dp_agreement_read (const char *text, DpSettings *settings, int *stages, DpHalves (*cuts)[2], GStringChunk *storage,
    GError **error);

/** FALSE with DP_ERROR_SETTINGS when rank 0's text and this rank's differ, but for the model's directory. */
gboolean dp_agreement_check (const char *rank_0, const char *here, GError **error);
