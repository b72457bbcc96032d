/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * speed_table.h: measured times of a kind of device, in a JSON file.
 *
 * `dualparal bench --add-times FILE` measures one device and adds a line. A plan with the setting
 * `times` takes the line of each of its devices: it shares out the layers by them, and `dualparal
 * plan` says how fast such a ring would be. A line holds for one architecture, size, block, context mode,
 * guidance and precision: nothing is extrapolated but the number of layers a stage.
 */
#pragma once

#include "plan.h"

/** Seconds of one device. */
typedef struct
{
  char device[128];             /* what it calls itself: DpDeviceInfo.description */
  double memory;                /* bytes that it has in all */
  double layer;                 /* a pass through one layer, with both elements where there is guidance */
  double decode;                /* decoding a block, as time that passes have to wait */
} DpSpeed;

/** Adds a line, in place of one for the same device and plan. Errors: DP_ERROR_FAILED, _BAD_MODEL (not such a file). */
gboolean dp_speed_table_add (const char *path, const DpPlan *plan, const DpSpeed *speed, GError **error);

/** The line for a plan on a device whose description contains `device`. Errors: DP_ERROR_NOT_FOUND, which says what there is. */
gboolean dp_speed_table_find (const char *path, const DpPlan *plan, const char *device, DpSpeed *speed, GError **error);
