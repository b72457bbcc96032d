/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "plan.h"
#include "ranks.h"

char *
dp_plan_stage_name (const DpPlan *plan, int stage)
{
  const DpPlanStage *s = &plan->stages[stage];

  if (!plan->across)
    return g_strdup_printf ("stage %d (%s)", stage, s->device);
  DpRank r = { 0 };
  if (s->host)
    g_strlcpy (r.host, s->host, sizeof r.host);
  else
    dp_ranks_host_name (r.host, sizeof r.host);
  g_strlcpy (r.device, s->device, sizeof r.device);
  return dp_rank_name (stage, &r);
}

/* Counted from 0, the end not included; half a layer is its self-attention. */
static void
describe_layers (const DpPlan *plan, const DpPlanStage *stage, GString *text)
{
  const DpHalves *h = stage->halves;

  g_string_append_printf (text, "layers %g-%g", h[0].first / 2.0, h[0].last / 2.0);
  if (h[0].first != h[1].first || h[0].last != h[1].last)
    g_string_append_printf (text, " and %g-%g", h[1].first / 2.0, h[1].last / 2.0);
}

/* What the kept keys and values take is in each stage's bytes; here it is told alone, for it is what the mode costs. */
static void
describe_context (const DpPlan *plan, GString *text)
{
  DpStageSpec spec = dp_plan_stage_spec (plan);
  gsize bytes = 0;

  if (plan->kept_blocks == 0) {
    g_string_append_printf (text, "  context       %s\n", plan->context_latents > 0 ? "recomputed" : "none");
    return;
  }
  for (int i = 0; i < plan->n_stages; i++)
    bytes += dp_stage_kept_bytes (&spec, plan->stages[i].halves);
  g_string_append_printf (text, "  context       cached, of %d blocks: %.1f MiB in all stages\n", plan->kept_blocks, bytes / 1048576.0);
}

char *
dp_plan_describe (const DpPlan *plan)
{
  const DpSettings *s = &plan->settings;
  int scale = plan->model->config.vae.spatial_scale;
  GString *text = g_string_new (NULL);

  if (s->width != plan->latent_w * scale || s->height != plan->latent_h * scale)
    g_string_append_printf (text, "  picture       %dx%d, the middle of %dx%d\n", s->width, s->height, plan->latent_w * scale,
        plan->latent_h * scale);
  g_string_append_printf (text, "  precision     %s\n  blocks        a new one every ", s->precision);
  if (plan->lag > 1)
    g_string_append_printf (text, "%d steps", plan->lag);
  else
    g_string_append (text, "step");
  g_string_append_printf (text, ", at most %d in flight", plan->depth);
  if (plan->n_stages > 1)
    g_string_append_printf (text, ", %d of them between stages",
        MIN (plan->depth, plan->messages / (dp_plan_is_uniform (plan) ? plan->elements : 1)));
  g_string_append_c (text, '\n');
  if (!dp_plan_is_uniform (plan))
    g_string_append_printf (text, "  guidance      in steps %d to %d of %d\n", plan->guided_first + 1, plan->guided_end, s->steps);
  describe_context (plan, text);
  for (int i = 0; i < plan->n_stages; i++) {
    const DpPlanStage *stage = &plan->stages[i];

    g_string_append_printf (text, "  stage %-7d %s%s%s, ", i, stage->host ? stage->host : "", stage->host ? ":" : "", stage->device);
    describe_layers (plan, stage, text);
    g_string_append_printf (text, ", host threads %d, %.1f MiB\n", stage->threads, stage->bytes / 1048576.0);
  }
  g_string_append_printf (text, "  decoder       %s, %.1f MiB\n", plan->decoder_device, plan->decoder_bytes / 1048576.0);
  g_string_append_printf (text, "  text encoder  %s, %s, %.1f MiB (%s it would take %.1f)\n", plan->text_device, s->text_encoder,
      plan->text_bytes / 1048576.0, plan->streamed ? "resident" : "streamed", dp_plan_text_bytes (plan, !plan->streamed) / 1048576.0);
  for (int i = 0; i < plan->n_stages; i++) {
    const char *device = plan->stages[i].device;
    gboolean listed = plan->stages[i].host != NULL;     /* there is nothing else of it there */

    for (int j = 0; j < i; j++)
      listed |= strcmp (plan->stages[j].device, device) == 0;
    if (!listed)
      g_string_append_printf (text, "  in all        %.1f MiB on %s\n", dp_plan_bytes (plan, device) / 1048576.0, device);
  }
  if (plan->passed_over)
    g_string_append_printf (text, "  %s\n", plan->passed_over);
  if (plan->unguided)
    g_string_append_printf (text, "  %s\n", plan->unguided);
  if (plan->untrained)
    g_string_append_printf (text, "  %s\n", plan->untrained);
  if (dp_plan_unheld (plan))
    g_string_append_printf (text, "  %s\n", dp_plan_unheld (plan));
  if (plan->starved)
    g_string_append_printf (text, "  %s\n", plan->starved);
  return g_string_free (text, FALSE);
}
