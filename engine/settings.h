/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * settings.h: what was asked for: the defaults and the ranges of DpSettings.
 *
 * Pure: the result follows from the settings and the model's config files. No device is asked and
 * nothing about this machine counts. What this machine makes of it is a plan (plan.h).
 */
#pragma once

#include "dualparal.h"
#include "wan/model.h"

/** The least lag at which context-mode=auto is "cached": docs/design.md, "Choices". */
#define DP_CACHED_LAG 3

/** Opens the model that they name. Errors: those of dp_model_open(). */
DpModel *dp_settings_model (const DpSettings *settings, GError **error);

/** Fills in every default and checks each value and their combination. Only what is a choice among
 *  devices stays open: "auto" in devices, precision and text_encoder, and 0 threads. Strings are copied
 *  into `storage`. Errors: DP_ERROR_SETTINGS; the settings are undefined then. */
gboolean dp_settings_fill (DpSettings *settings, const DpModel *model, GStringChunk *storage, GError **error);

/** Sets DP_ERROR_SETTINGS, printf style, and returns FALSE. What a caller gave need not be UTF-8; the
 *  message is. */
gboolean dp_settings_refuse (GError **error, const char *format, ...) G_GNUC_PRINTF (2, 3);
