// SPDX-License-Identifier: LGPL-2.1-or-later
// The world the embedded model knows: one function from (scene, objects, time, pixel) to a colour. The same source is a CUDA kernel (NVRTC) and,
// with -DHOST, a C function. No state and no random numbers: a clip is a function of its parameters. Everything that moves is periodic or
// stationary, every background has one phase, and hashes are integers, so that both builds draw the same stars.
//
// scene: 0 background, 1 its phase, 2 camera amplitude in px, 3 camera phase
// object: 0 subject, 1 motion, 2..4 rgb, 5 radius (0: none), 6 x, 7 y, 8 amplitude, 9 second amplitude, 10 frequency, 11 phase,
//         12 beats of wings, tails and flames per period (a whole number, so that a subject has one phase), 13 rotation, 14 side (-1, 1),
//         15 how far from its middle it reaches the way it goes, where it leaves the picture and comes in again on the other side
// out: R, G, B, and which object covers the pixel (1, 2, ...; 0 none)
#ifdef HOST
#include <math.h>
#define FN static inline
#define rsqrtf(x) (1.f / sqrtf (x))
#else
#define FN __device__ __forceinline__
#endif
#define TAU 6.28318531f
#define W_ 256.f
#define H_ 144.f
#define FPS 16.f
#define NS 4
#define NO 16

typedef struct { float r, g, b; } Rgb;

FN float cl(float x) { return fminf(fmaxf(x, 0.f), 1.f); }
FN float ss(float a, float b, float x) { float t = cl((x - a) / (b - a)); return t * t * (3.f - 2.f * t); }
FN float fr(float x) { return x - floorf(x); }
FN float lp(float a, float b, float t) { return a + (b - a) * t; }
FN float wrap(float x, float period) { return (fr(x / period + 0.5f) - 0.5f) * period; }
FN float tri(float u) { return 1.f - 4.f * fabsf(fr(u + 0.25f) - 0.5f); }        // -1..1, 0 at 0, like a sine
FN float len(float x, float y) { return sqrtf(x * x + y * y); }
FN float hs(int a, int b, int c) {                                              // 0..1
  unsigned h = (unsigned) a * 374761393u + (unsigned) b * 668265263u + (unsigned) c * 2246822519u;
  h = (h ^ (h >> 13)) * 1274126177u; h ^= h >> 16;
  return (float) (h >> 8) * (1.f / 16777216.f);
}
FN Rgb rgb(float r, float g, float b) { Rgb c = {r, g, b}; return c; }
FN Rgb mixc(Rgb a, Rgb b, float t) { return rgb(lp(a.r, b.r, t), lp(a.g, b.g, t), lp(a.b, b.b, t)); }
FN Rgb mulc(Rgb a, float k) { return rgb(a.r * k, a.g * k, a.b * k); }

// ---- distances, in px; x to the right, y down, r the radius of the subject ----

FN float ellipse(float x, float y, float a, float b) {
  float k0 = len(x / a, y / b), k1 = len(x / (a * a), y / (b * b));
  return k0 < 1e-4f ? -fminf(a, b) : k0 * (k0 - 1.f) / k1;
}
FN float segment(float x, float y, float ax, float ay, float bx, float by) {
  float dx = bx - ax, dy = by - ay, h = cl(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy));
  return len(x - ax - dx * h, y - ay - dy * h);
}
FN float outside(float x, float y, float ax, float ay, float bx, float by) {    // of the line a -> b: positive above it when it goes to the right
  float dx = bx - ax, dy = by - ay, n = rsqrtf(dx * dx + dy * dy);
  return ((x - ax) * dy - (y - ay) * dx) * n;
}

#define BALL 0
#define CUBE 1
#define TRIANGLE 2
#define STAR 3
#define HEART 4
#define RING 5
#define FISH 6
#define BUTTERFLY 7
#define ROCKET 8
#define FLOWER 9
#define GHOST 10
#define MUSHROOM 11

FN float subject(int s, float x, float y, float r, float beat) {                // beat: phase of what the subject does by itself
  float d, e, w;
  switch (s) {
    case BALL:
      return len(x, y) - r;
    case CUBE: {                                                                // a square swept along (v, -v)
      float h = 0.68f * r, v = 0.26f * r;
      return fmaxf(fmaxf(fabsf(x), fabsf(y)) - h - v, fabsf(x + y) * 0.70710678f - 1.41421356f * h) - 1.f;
    }
    case TRIANGLE: {
      float q = 0.95f * r, k = 1.7320508f;
      y = -(y - 0.22f * r); x = fabsf(x) - q; y += q / k;
      if (x + k * y > 0.f) { float nx = (x - k * y) * 0.5f, ny = (-k * x - y) * 0.5f; x = nx; y = ny; }
      x -= fmaxf(-2.f * q, fminf(0.f, x));
      return (y < 0.f ? 1.f : -1.f) * len(x, y) - 0.12f * r;
    }
    case STAR: {
      float R = 1.06f * r, f = 0.50f, ax = 0.809016994f, ay = -0.587785252f, bx, by, h;
      y = -y; x = fabsf(x);
      d = fmaxf(ax * x + ay * y, 0.f) * 2.f; x -= d * ax; y -= d * ay;
      d = fmaxf(-ax * x + ay * y, 0.f) * 2.f; x += d * ax; y -= d * ay;
      x = fabsf(x); y -= R; bx = -f * ay; by = f * ax - 1.f;
      h = fmaxf(0.f, fminf(R, (x * bx + y * by) / (bx * bx + by * by)));
      return (y * bx - x * by < 0.f ? -1.f : 1.f) * len(x - bx * h, y - by * h) - 0.09f * r;
    }
    case HEART: {
      float S = 1.72f * r;
      x = fabsf(x) / S; y = -(y / S) + 0.57f;
      if (y + x > 1.f)
        d = len(x - 0.25f, y - 0.75f) - 0.35355339f;
      else {
        e = 0.5f * fmaxf(x + y, 0.f);
        d = (x < y ? -1.f : 1.f) * fminf(len(x, y - 1.f), len(x - e, y - e));
      }
      return d * S - 0.04f * r;
    }
    case RING:
      return fabsf(len(x, y) - 0.72f * r) - 0.29f * r;
    case FISH:
      y -= 0.22f * r * sinf(TAU * beat) * ss(0.1f * r, -1.2f * r, x);
      d = ellipse(x - 0.17f * r, y, 0.92f * r, 0.62f * r);
      e = fmaxf(fmaxf(fabsf(y) * 0.74f + (x + 0.52f * r) * 0.67f, -(x + 1.16f * r)), x);
      w = ellipse(x + 0.02f * r, y + 0.55f * r, 0.42f * r, 0.26f * r);
      return fminf(fminf(d, e - 0.05f * r), w);
    case BUTTERFLY:
      w = 0.77f + 0.23f * cosf(TAU * beat);
      e = fabsf(x);
      d = fminf(segment(e, y, 0.f, -0.40f * r, 0.f, 0.55f * r) - 0.11f * r, segment(e, y, 0.f, -0.40f * r, 0.34f * r, -0.98f * r) - 0.045f * r);
      e /= w;
      x = 0.82f * (e - 0.60f * r) - 0.57f * (y + 0.36f * r);
      x = ellipse(x, 0.57f * (e - 0.60f * r) + 0.82f * (y + 0.36f * r), 0.68f * r, 0.47f * r);
      y = ellipse(e - 0.44f * r, y - 0.46f * r, 0.46f * r, 0.42f * r);
      return fminf(d, fminf(x, y) * lp(w, 1.f, 0.4f));
    case ROCKET:
      x = fabsf(x);
      d = fmaxf(ellipse(x, y + 0.02f * r, 0.56f * r, 1.16f * r), y - 0.62f * r);
      e = fmaxf(fmaxf(outside(x, y, 0.40f * r, 0.05f * r, 0.84f * r, 0.74f * r), -outside(x, y, 0.30f * r, 0.62f * r, 0.84f * r, 0.84f * r)), 0.30f * r - x) - 0.04f * r;
      w = ellipse(x, y - 0.66f * r, 0.27f * r, (0.44f + 0.12f * sinf(TAU * beat)) * r);
      return fminf(fminf(d, e), w);
    case FLOWER: {
      float a = atan2f(y, x) * (6.f / TAU), q = len(x, y);
      a = (a - floorf(a + 0.5f)) * (TAU / 6.f);
      return fminf(ellipse(q * cosf(a) - 0.64f * r, q * sinf(a), 0.42f * r, 0.33f * r), q - 0.45f * r);
    }
    case GHOST:
      e = y < -0.18f * r ? len(x, y + 0.18f * r) - 0.84f * r : fabsf(x) - 0.84f * r;
      return fmaxf(e, (y - (0.86f + 0.13f * cosf(x / r * 11.2f + TAU * beat)) * r) * 0.72f);
    default:                                                                    // mushroom
      d = fmaxf(ellipse(x, y - 0.12f * r, 1.08f * r, 1.10f * r), y - 0.16f * r) - 0.03f * r;
      w = fmaxf(fabsf(x) - lp(0.34f, 0.44f, cl(y / r)) * r, fmaxf(-y, y - 0.86f * r)) - 0.08f * r;
      return fminf(d, w);
  }
}

// The colour inside, lit from the top left. (x, y) turn with the subject, (dx, dy) do not.
FN Rgb paint(int s, Rgb c, float x, float y, float dx, float dy, float r, float beat, float d) {
  float lum = 0.3f * c.r + 0.59f * c.g + 0.11f * c.b, a;
  Rgb white = rgb(0.99f, 0.98f, 0.96f), dark = rgb(0.10f, 0.09f, 0.13f), pale = lum > 0.84f ? mulc(c, 0.80f) : mixc(c, white, 0.62f);
  Rgb deep = lum < 0.14f ? mixc(c, white, 0.22f) : mulc(c, 0.66f), mark = lum < 0.14f ? white : dark;
  float k = 1.08f - 0.20f * cl((dx * 0.5f + dy) / r * 0.5f + 0.5f) - 0.20f * ss(-4.5f, 0.f, d);

  switch (s) {
    case BALL: {
      float m = x * rsqrtf(fmaxf(r * r - y * y, 1.f)), l = len(dx / r + 0.38f, dy / r + 0.42f);
      c = mixc(c, pale, cl(0.5f + (0.27f - fabsf(m)) * r * 0.5f));
      k = 1.12f - 0.42f * cl(l * l * 0.38f);
      return mixc(mulc(c, k), white, ss(0.30f, 0.05f, l) * 0.75f);
    }
    case CUBE: {
      float h = 0.68f * r, v = 0.26f * r, fx = x + v, fy = y - v, top = cl(0.5f - fy - h), side = cl(0.5f + fx - h), g = cl(((fx - h) + (fy + h)) * 0.7071f + 0.5f);
      Rgb f = mulc(c, 1.02f - 0.10f * cl((fy / h + 1.f) * 0.5f));
      f = mixc(f, lum > 0.84f ? rgb(1.f, 1.f, 1.f) : mixc(c, white, 0.38f), top * (1.f - g));
      return mixc(f, deep, side * g);
    }
    case RING: {
      float t = atan2f(y, x) * (4.f / TAU);
      t = fabsf(t - floorf(t + 0.5f));
      c = mixc(c, pale, cl(0.5f + (0.17f - t) * r * 1.1f));
      return mulc(c, 1.08f - 0.22f * cl((dx * 0.5f + dy) / r * 0.5f + 0.5f) - 0.26f * ss(-0.22f * r, 0.f, d));
    }
    case FISH:
      y -= 0.22f * r * sinf(TAU * beat) * ss(0.1f * r, -1.2f * r, x);
      c = mixc(c, pale, 0.75f * ss(0.10f * r, 0.42f * r, y) * ss(-0.7f * r, -0.2f * r, x));
      c = mixc(c, deep, cl(0.5f - (fabsf(x + 0.10f * r) - 0.09f * r)) * 0.8f);
      c = mixc(c, deep, cl(0.5f - (x + 0.62f * r)) * 0.55f);
      c = mulc(c, k);
      a = len(x - 0.66f * r, y + 0.14f * r);
      c = mixc(c, white, cl(0.5f - (a - 0.19f * r)));
      return mixc(c, dark, cl(0.5f - (len(x - 0.70f * r, y + 0.14f * r) - 0.105f * r)));
    case BUTTERFLY: {
      float w = 0.77f + 0.23f * cosf(TAU * beat), e = fabsf(x) / w, b;
      c = mixc(c, deep, ss(-0.20f * r, -0.06f * r, d));
      c = mixc(c, pale, cl(0.5f - (len(e - 0.74f * r, y + 0.50f * r) - 0.18f * r)));
      c = mixc(c, pale, cl(0.5f - (len(e - 0.46f * r, y - 0.50f * r) - 0.15f * r)));
      e = fabsf(x);
      b = fminf(segment(e, y, 0.f, -0.40f * r, 0.f, 0.55f * r) - 0.10f * r, segment(e, y, 0.f, -0.40f * r, 0.34f * r, -0.98f * r) - 0.04f * r);
      return mixc(mulc(c, k + 0.06f), lum < 0.14f ? rgb(0.55f, 0.55f, 0.60f) : rgb(0.22f, 0.16f, 0.18f), cl(0.5f - b));
    }
    case ROCKET: {
      float ax = fabsf(x), body = fmaxf(ellipse(ax, y + 0.02f * r, 0.56f * r, 1.16f * r), y - 0.62f * r), g = len(x, y + 0.30f * r);
      Rgb flame = mixc(rgb(1.f, 0.85f, 0.25f), rgb(0.98f, 0.45f, 0.08f), ss(0.62f * r, 1.0f * r, y + 0.5f * ax));
      Rgb b = mulc(c, 1.10f - 0.40f * cl(x / r * 0.9f + 0.45f));
      Rgb out = ax > 0.28f * r && y < 0.90f * r ? mulc(deep, k + 0.05f) : flame;
      b = mixc(b, deep, cl(0.5f - (y + 0.70f * r)));
      b = mixc(b, deep, cl(0.5f - (fabsf(y - 0.50f * r) - 0.07f * r)));
      b = mixc(b, white, cl(0.5f - (g - 0.25f * r)));
      b = mixc(b, rgb(0.35f, 0.62f, 0.88f), cl(0.5f - (g - 0.17f * r)));
      return mixc(out, b, cl(0.5f - body));
    }
    case FLOWER: {
      float q = len(x, y), t = atan2f(y, x) * (6.f / TAU);
      t = fabsf(t - floorf(t + 0.5f));
      c = mixc(c, deep, 0.75f * ss(0.30f, 0.50f, t) * ss(0.95f * r, 0.35f * r, q));
      c = mulc(c, k + 0.04f);
      a = cl(0.5f - (q - 0.29f * r));
      return mixc(c, c.r > 0.7f && c.g > 0.45f && c.b < 0.4f ? rgb(0.50f, 0.27f, 0.10f) : rgb(0.99f, 0.82f, 0.20f), a);
    }
    case GHOST:
      c = mulc(c, k + 0.03f);
      a = fminf(ellipse(fabsf(x - 0.06f * r) - 0.30f * r, y + 0.22f * r, 0.14f * r, 0.20f * r), ellipse(x - 0.06f * r, y - 0.20f * r, 0.13f * r, 0.11f * r));
      return mixc(c, mark, cl(0.5f - a));
    case MUSHROOM: {
      float stem = y - 0.16f * r;
      Rgb st = mulc(rgb(0.96f, 0.90f, 0.78f), 1.04f - 0.28f * cl(x / r * 0.9f + 0.45f) - 0.20f * ss(0.45f * r, 0.18f * r, y));
      a = fminf(fminf(len(x + 0.48f * r, y + 0.22f * r) - 0.19f * r, len(x - 0.10f * r, y + 0.56f * r) - 0.20f * r),
          fminf(len(x - 0.60f * r, y + 0.14f * r) - 0.17f * r, len(x + 0.02f * r, y + 0.02f * r) - 0.13f * r));
      c = mulc(mixc(c, lum > 0.84f ? pale : white, cl(0.5f - a)), k + 0.02f);
      return mixc(c, st, cl(0.5f + stem));
    }
    default:                                                                    // triangle, star, heart
      a = s == HEART ? len(dx / r + 0.42f, dy / r + 0.42f) : s == STAR ? len(dx / r + 0.1f, dy / r + 0.15f) : len(dx / r + 0.1f, dy / r - 0.1f);
      c = mixc(mulc(c, k), lum > 0.84f ? white : mixc(c, white, 0.75f), (s == HEART ? 0.75f : 0.30f) * ss(s == HEART ? 0.28f : 0.55f, 0.02f, a));
      return mixc(c, deep, 0.55f * ss(-0.13f * r, -0.07f * r, d));
  }
}

// ---- where things are ----

typedef struct { float x, y, r, rot, sx, sy, beat, depth; } Pose;

FN Pose pose(const float *o, float t) {
  int s = (int) o[0], m = (int) o[1];
  float r = o[5], A = o[8], B = o[9], u = o[11] + o[10] * t, side = o[14], q;
  Pose p = {o[6], o[7], r, o[13], 1.f, 1.f, u * o[12], 0.f};
  switch (m) {
    case 0: {                                                                   // bouncing
      float k = fr(u);
      p.y -= A * (1.f - (2.f * k - 1.f) * (2.f * k - 1.f));
      q = ss(0.11f, 0.f, fminf(k, 1.f - k)); p.sy = 1.f - 0.16f * q; p.sx = 1.f + 0.11f * q; p.y += 0.15f * q * r;
      break;
    }
    case 1: p.x += A * cosf(TAU * u); p.y += B * sinf(TAU * u); break;          // circling
    case 2: q = 0.95f * sinf(TAU * u); p.x += A * sinf(q); p.y += A * (cosf(q) - 1.f) * 0.9f; p.rot -= q * 0.8f; break;      // swinging
    case 3: p.x = fr(u) * (W_ + 2.f * o[15]) - o[15]; break;                   // to the right
    case 4: p.x = W_ + o[15] - fr(u) * (W_ + 2.f * o[15]); break;              // to the left
    case 5: p.rot += TAU * u; break;                                            // spinning
    case 6: p.r = r * (1.f + 0.26f * sinf(TAU * u)); break;                     // pulsing
    case 7: p.y = H_ + o[15] - fr(u) * (H_ + 2.f * o[15]); break;              // rising
    case 8: p.y = fr(u) * (H_ + 2.f * o[15]) - o[15]; break;                   // falling
    case 9: p.x += A * tri(u); p.y += B * tri(3.f * u + 0.25f); break;          // zigzag
    case 10:                                                                    // around another
      p.x += A * cosf(TAU * u); p.y += B * sinf(TAU * u); p.depth = sinf(TAU * u); p.r = r * (1.f + 0.12f * p.depth);
      break;
    case 11: {                                                                  // against another; side says which
      float k = fr(u);
      p.x += side * A * (1.f - (2.f * k - 1.f) * (2.f * k - 1.f));
      q = ss(0.10f, 0.f, fminf(k, 1.f - k)); p.sx = 1.f - 0.16f * q; p.sy = 1.f + 0.10f * q; p.x -= side * 0.14f * q * r;
      break;
    }
    default: p.y += 3.f * sinf(TAU * 2.f * u); break;                           // the one in the middle
  }
  if (s == FISH) {                                                              // swims the way it goes, turning like paper
    if (m == 4) p.sx = -p.sx;
    if (m == 1 || m == 10) q = -sinf(TAU * u);
    else if (m == 9 || m == 2) q = cosf(TAU * u);
    else q = 1.f;
    q = fmaxf(-1.f, fminf(1.f, q * 3.f));
    p.sx *= fabsf(q) < 0.2f ? (q < 0.f ? -0.2f : 0.2f) : q;
    if (m == 11) p.sx *= -side;
  }
  if (s == ROCKET && (m == 3 || m == 4 || m == 8)) p.rot += m == 3 ? 0.25f * TAU : m == 4 ? -0.25f * TAU : 0.5f * TAU;
  return p;
}

FN void object(const float *o, Pose p, float px, float py, Rgb *c, float *cover, float id) {
  int s = (int) o[0];
  float dx = px - p.x, dy = py - p.y, r = p.r, reach = 1.35f * r + 14.f, cr, sr, x, y, d, a;
  Rgb col = rgb(o[2], o[3], o[4]);
  if (fabsf(dx) > reach || fabsf(dy) > reach) return;
  cr = cosf(p.rot); sr = sinf(p.rot);
  x = (cr * (dx - 4.f) + sr * (dy - 6.f)) / p.sx; y = (-sr * (dx - 4.f) + cr * (dy - 6.f)) / p.sy;
  a = 0.34f * ss(7.f, -5.f, subject(s, x, y, r, p.beat) * fminf(fabsf(p.sx), 1.f));
  *c = mulc(*c, 1.f - a);
  x = (cr * dx + sr * dy) / p.sx; y = (-sr * dx + cr * dy) / p.sy;
  d = subject(s, x, y, r, p.beat) * fminf(fabsf(p.sx), 1.f);
  a = cl(0.5f - (d - 2.2f));                                                    // cut out of paper: a light edge, seen on every background
  if (a <= 0.f) return;
  *c = mixc(*c, rgb(0.99f, 0.98f, 0.95f), a);
  if (a > 0.5f) *cover = id;
  a = cl(0.5f - d);
  if (a > 0.f) *c = mixc(*c, paint(s, col, x, y, dx, dy, r, p.beat, d), a);
}

// ---- backgrounds ----

FN float cloud(float x, float y, float s) {
  float v = 1.f - (x * x / (576.f * s * s) + y * y / (72.f * s * s)), a = (x + 9.f * s) / (11.f * s), d = (y + 6.f * s) / (10.f * s);
  v = fmaxf(v, 1.f - (a * a + d * d));
  a = (x - 7.f * s) / (12.f * s); d = (y + 8.f * s) / (11.f * s);
  return ss(0.f, 0.35f, fmaxf(v, 1.f - (a * a + d * d)));
}
FN float ridge(float x, float base, float a1, float f1, float p1, float a2, float f2, float p2) {
  return base + a1 * sinf(x * f1 + p1) + a2 * sinf(x * f2 + p2);
}
FN float stars(float x, float y, float w, float cell, float density) {
  int gx = (int) floorf(x / cell), gy = (int) floorf(y / cell);
  float h1 = hs(gx, gy, 1), h2 = hs(gx, gy, 2), h3 = hs(gx, gy, 3), h4 = hs(gx, gy, 4), R = 0.8f + 1.1f * h4 * h4;
  float d = len(x - (gx + 0.2f + 0.6f * h1) * cell, y - (gy + 0.2f + 0.6f * h2) * cell), tw = 0.72f + 0.28f * sinf(TAU * (8.f * w + h4));
  return h3 < density ? cl(cl(R + 0.6f - d) * tw + 0.22f * tw * ss(4.5f * R, 0.f, d)) : 0.f;
}
FN float falling(float x, float y, float w, float cell, float R, int seed, float cycles, float slant) {   // round things, `cycles` screens down per period
  float yy = y - w * cycles * H_, xx = x - slant * y;
  int gx = (int) floorf(xx / cell), gy, n = (int) (H_ / cell);
  float h1, h2;
  yy = fr(yy / H_) * H_; gy = (int) floorf(yy / cell) % n;
  h1 = hs(gx, gy, seed); h2 = hs(gx, gy, seed + 1);
  return ss(R + 0.8f, R - 0.8f, len(xx - (gx + 0.25f + 0.5f * h1) * cell, yy - (gy + 0.25f + 0.5f * h2) * cell));
}

FN Rgb background(const float *sc, float t, float x, float y) {
  int bg = (int) sc[0];
  float cam = sc[2] * sinf(TAU * (t * 0.125f + sc[3])), v = y / H_, w, q, d, a, xf = x + 0.35f * cam, xm = x + 0.7f * cam, xn = x + cam;
  Rgb c;
  switch (bg) {
    case 0: {                                                                   // blue sky, clouds
      w = fr(sc[1] + t / 24.f);
      c = mixc(rgb(0.22f, 0.52f, 0.90f), rgb(0.72f, 0.88f, 0.98f), v);
      for (int i = 0; i < 5; i++) {
        float s = i == 0 ? 1.25f : i == 1 ? 0.95f : i == 2 ? 1.5f : i == 3 ? 1.1f : 0.8f, cy = i == 0 ? 30.f : i == 1 ? 98.f : i == 2 ? 62.f : i == 3 ? 124.f : 18.f;
        a = cloud(wrap(xf - 68.f * i - 340.f * w, 340.f), y - cy, s);
        c = mixc(c, mixc(rgb(1.f, 1.f, 1.f), rgb(0.80f, 0.87f, 0.95f), cl((y - cy + 8.f * s) / (18.f * s))), a * 0.95f);
      }
      return c;
    }
    case 1:                                                                     // starry night, moon, hills
      w = fr(sc[1] + t / 20.f);
      c = mixc(rgb(0.03f, 0.04f, 0.18f), rgb(0.16f, 0.16f, 0.42f), v);
      c = mixc(c, rgb(1.f, 0.97f, 0.86f), stars(xf, y, w, 22.f, 0.72f));
      d = fmaxf(len(xf - 214.f, y - 30.f) - 16.f, -(len(xf - 206.f, y - 25.f) - 15.f));
      c = mixc(c, rgb(0.55f, 0.55f, 0.75f), 0.35f * ss(46.f, 8.f, len(xf - 214.f, y - 30.f)));
      c = mixc(c, rgb(1.f, 0.95f, 0.75f), cl(0.5f - d));
      c = mixc(c, rgb(0.08f, 0.10f, 0.28f), cl(y - ridge(xm, 112.f, 9.f, 0.022f, 1.f, 3.f, 0.06f, 2.f) + 0.5f));
      return mixc(c, rgb(0.04f, 0.06f, 0.18f), cl(y - ridge(xn, 127.f, 7.f, 0.03f, 4.f, 3.f, 0.08f, 0.f) + 0.5f));
    case 2: {                                                                   // sunset over the sea
      float hz = 84.f;
      w = fr(sc[1] + t / 12.f);
      if (y < hz) {
        q = y / hz;
        c = mixc(rgb(0.50f, 0.24f, 0.50f), rgb(1.f, 0.62f, 0.26f), q);
        d = len(xf - 128.f, y - hz);
        c = mixc(c, rgb(1.f, 0.86f, 0.45f), 0.55f * ss(120.f, 15.f, d));
        c = mixc(c, rgb(1.f, 0.94f, 0.66f), cl(0.5f - (d - 28.f)));
        a = fmaxf(ellipse(xf - 52.f, y - 36.f, 44.f, 4.f), -100.f);
        a = fminf(a, fminf(ellipse(xf - 84.f, y - 42.f, 36.f, 3.f), fminf(ellipse(xf - 205.f, y - 24.f, 46.f, 4.f), ellipse(xf - 186.f, y - 56.f, 34.f, 3.f))));
        c = mixc(c, rgb(0.98f, 0.50f, 0.42f), 0.65f * ss(2.f, -2.f, a));
      } else {
        float z, wv;
        q = (y - hz) / (H_ - hz); z = 1.f / (0.18f + q);
        c = mixc(rgb(0.86f, 0.44f, 0.36f), rgb(0.16f, 0.14f, 0.40f), sqrtf(q));
        wv = 0.6f * sinf(z * 7.5f + TAU * 5.f * w + 0.9f * sinf(xn * 0.045f + TAU * 2.f * w)) + 0.4f * sinf(xn * 0.09f * (0.5f + 0.2f * z) - TAU * 5.f * w + y * 0.35f);
        c.r += 0.13f * wv; c.g += 0.10f * wv; c.b += 0.10f * wv;
        a = ss(50.f * (0.5f + q), 4.f, fabsf(xf - 128.f)) * ss(0.f, 0.8f, wv) * 0.8f;
        c = mixc(c, rgb(1.f, 0.86f, 0.5f), a);
      }
      return c;
    }
    case 3: {                                                                   // meadow
      float sway, k, k2, fx, fy, h;
      int gx, gy;
      w = fr(sc[1] + t / 10.f); sway = sinf(TAU * 4.f * w);
      c = mixc(rgb(0.50f, 0.78f, 0.97f), rgb(0.90f, 0.96f, 0.98f), v * 1.7f);
      d = len(xf - 40.f, y - 26.f);
      c = mixc(c, rgb(1.f, 0.96f, 0.75f), 0.5f * ss(44.f, 12.f, d)); c = mixc(c, rgb(1.f, 0.93f, 0.55f), cl(0.5f - (d - 14.f)));
      c = mixc(c, rgb(0.55f, 0.78f, 0.50f), cl(y - ridge(xf, 66.f, 9.f, 0.021f, 0.6f, 3.f, 0.05f, 2.f) + 0.5f));
      h = ridge(xm, 88.f, 7.f, 0.028f, 3.4f, 2.f, 0.07f, 0.f);
      c = mixc(c, mixc(rgb(0.44f, 0.72f, 0.30f), rgb(0.22f, 0.50f, 0.18f), cl((y - h) / 60.f)), cl(y - h + 0.5f));
      if (y > 100.f) {
        gx = (int) floorf((xn) / 26.f); gy = (int) floorf(y / 16.f);
        k = hs(gx, gy, 7); k2 = hs(gx, gy, 8); fx = (gx + 0.3f + 0.4f * k) * 26.f + sway * 2.f; fy = (gy + 0.35f + 0.3f * k2) * 16.f;
        a = k2 > 0.2f ? 1.f : 0.f; d = len(xn - fx, y - fy);
        c = mixc(c, k < 0.5f ? rgb(1.f, 0.98f, 0.95f) : rgb(0.98f, 0.70f, 0.80f), a * cl(3.2f - d)); c = mixc(c, rgb(0.98f, 0.78f, 0.15f), a * cl(1.6f - d));
      }
      return c;
    }
    case 4: {                                                                   // snow, firs
      float h;
      w = fr(sc[1] + t / 10.f);
      c = mixc(rgb(0.36f, 0.46f, 0.66f), rgb(0.80f, 0.86f, 0.93f), v);
      for (int i = 0; i < 2; i++) {                                             // firs: three triangles, one above the other
        float cell = i ? 46.f : 30.f, base = i ? 124.f : 114.f, top = i ? 54.f : 34.f, xx = i ? xn : xm, g = floorf(xx / cell), k = hs((int) g, i, 21), wd;
        d = fabsf(xx - (g + 0.5f + 0.2f * (k - 0.5f)) * cell); h = top * (0.75f + 0.35f * k); q = (y - base + h) / h;
        wd = q > 0.f && q < 1.f ? h * 0.32f * (q * 0.45f + 0.55f * fr(q * 2.999f) * (0.45f + 0.55f * q)) : -5.f;
        a = cl(wd - d + 0.5f) * (k > (i ? 0.45f : 0.2f) ? 1.f : 0.f);
        c = mixc(c, i ? rgb(0.20f, 0.34f, 0.40f) : rgb(0.42f, 0.53f, 0.64f), a);
        h = i ? ridge(xn, 120.f, 5.f, 0.03f, 1.f, 2.f, 0.07f, 0.f) : ridge(xm, 110.f, 4.f, 0.026f, 3.f, 2.f, 0.06f, 1.f);
        c = mixc(c, mixc(i ? rgb(0.90f, 0.94f, 0.98f) : rgb(0.78f, 0.84f, 0.92f), rgb(0.99f, 1.f, 1.f), cl((y - h) / 24.f)), cl(y - h + 0.5f));
      }
      c = mixc(c, rgb(1.f, 1.f, 1.f), 0.75f * falling(xm, y, w, 24.f, 1.6f, 31, 1.f, 0.f));
      return mixc(c, rgb(1.f, 1.f, 1.f), 0.95f * falling(xn, y, w, 36.f, 2.7f, 35, 2.f, 0.f));
    }
    case 5: {                                                                   // desert
      float h, s;
      w = fr(sc[1] + t / 10.f);
      c = mixc(rgb(0.98f, 0.66f, 0.36f), rgb(1.f, 0.90f, 0.66f), v * 1.6f);
      d = len(xf - 190.f, y - 34.f) + 0.25f * sinf(y * 0.6f + TAU * 4.f * w);
      c = mixc(c, rgb(1.f, 0.97f, 0.80f), 0.6f * ss(50.f, 14.f, d)); c = mixc(c, rgb(1.f, 0.98f, 0.86f), cl(0.5f - (d - 17.f)));
      h = ridge(xf, 80.f, 6.f, 0.03f, 0.f, 2.f, 0.07f, 1.f);
      c = mixc(c, rgb(0.90f, 0.62f, 0.40f), cl(y - h + 0.5f));
      h = ridge(xm, 98.f, 10.f, 0.019f, 2.f, 2.f, 0.05f, 0.f); s = cosf(xm * 0.019f + 2.f);
      c = mixc(c, mixc(rgb(0.93f, 0.70f, 0.40f), rgb(0.74f, 0.46f, 0.26f), ss(-0.3f, 0.3f, s)), cl(y - h + 0.5f));
      h = ridge(xn, 122.f, 8.f, 0.024f, 5.f, 2.f, 0.06f, 2.f);
      q = 0.035f * sinf(y * 1.1f + 2.f * sinf(xn * 0.05f) + TAU * 3.f * w);
      c = mixc(c, mixc(rgb(0.96f + q, 0.76f + q, 0.46f + q), rgb(0.84f + q, 0.58f + q, 0.33f + q), cl((y - h) / 26.f)), cl(y - h + 0.5f));
      d = fminf(segment(xm, y, 44.f, 110.f, 44.f, 74.f) - 5.f, fminf(segment(xm, y, 44.f, 96.f, 57.f, 96.f), segment(xm, y, 57.f, 96.f, 57.f, 84.f)) - 3.2f);
      d = fminf(d, fminf(segment(xm, y, 44.f, 90.f, 32.f, 90.f), segment(xm, y, 32.f, 90.f, 32.f, 80.f)) - 3.2f);
      return mixc(c, mixc(rgb(0.30f, 0.52f, 0.26f), rgb(0.20f, 0.38f, 0.20f), cl((xm - 40.f) / 10.f)), cl(0.5f - d));
    }
    case 6: {                                                                   // rain: grey hills, streaks, rings in the water
      float yy, k, k2, g;
      int gx, gy;
      w = fr(sc[1] + t / 6.f);
      c = mixc(rgb(0.28f, 0.32f, 0.40f), rgb(0.56f, 0.61f, 0.66f), v * 1.35f);
      for (int i = 0; i < 5; i++)
        c = mixc(c, rgb(0.24f, 0.27f, 0.34f), 0.75f * cloud(wrap(xf - 62.f * i, 310.f), y - 12.f - (i & 1 ? 8.f : 0.f), 1.9f));
      c = mixc(c, rgb(0.38f, 0.45f, 0.50f), cl(y - ridge(xm, 88.f, 8.f, 0.024f, 1.f, 3.f, 0.06f, 2.f) + 0.5f));
      if (y > 106.f) {
        c = mixc(rgb(0.46f, 0.54f, 0.60f), rgb(0.26f, 0.33f, 0.40f), (y - 106.f) / 38.f);
        gx = (int) floorf(xn / 40.f); gy = (int) floorf((y - 106.f) / 13.f); k = hs(gx, gy, 41);
        q = fr(6.f * w + k); d = len((xn - (gx + 0.5f) * 40.f), (y - 106.f - (gy + 0.5f) * 13.f) * 3.2f);
        c = mixc(c, rgb(0.85f, 0.90f, 0.93f), 0.65f * (1.f - q) * cl(1.6f - fabsf(d - 17.f * q)));
      }
      for (int i = 0; i < 2; i++) {                                             // streaks
        float cell = i ? 19.f : 12.f, L = i ? 17.f : 11.f, xx = xn + 0.16f * y;
        gx = (int) floorf(xx / cell); k = hs(gx, i, 43); k2 = hs(gx, i, 44); g = (i ? 10.f : 7.f);
        yy = wrap(y - H_ * (g * w + k), 72.f);
        a = cl(1.f - fabsf(xx - (gx + 0.3f + 0.4f * k2) * cell)) * cl((L - fabsf(yy)) * 0.3f);
        c = mixc(c, rgb(0.86f, 0.91f, 0.96f), a * (i ? 0.70f : 0.42f));
      }
      return c;
    }
    case 7: {                                                                   // northern lights
      float k, band, h;
      w = fr(sc[1] + t / 12.f);
      c = mixc(rgb(0.02f, 0.05f, 0.14f), rgb(0.06f, 0.18f, 0.28f), v);
      c = mixc(c, rgb(0.95f, 0.98f, 1.f), 0.8f * stars(xf, y, w, 26.f, 0.55f));
      for (int i = 0; i < 2; i++) {
        k = (i ? 66.f : 84.f) + 12.f * sinf(xf * 0.022f + TAU * (w + 0.3f * i)) + 5.f * sinf(xf * 0.055f - TAU * w * (i ? 2.f : 1.f));
        band = (k - y) / (i ? 50.f : 62.f);                                     // 0 at the lower edge, 1 at the top
        a = ss(-0.06f, 0.04f, band) * ss(1.f, 0.05f, band) * (0.78f + 0.22f * sinf(xf * 0.16f + 3.f * sinf(xf * 0.03f) + TAU * w * (i ? 2.f : -1.f)));
        c = mixc(c, mixc(rgb(0.22f, 0.98f, 0.58f), i ? rgb(0.72f, 0.30f, 0.90f) : rgb(0.20f, 0.62f, 0.88f), cl(band * 1.2f)), a * 0.72f);
      }
      h = 112.f - 24.f * fabsf(tri(xm * 0.0078f + 0.1f)) - 5.f * fabsf(tri(xm * 0.0234f));
      c = mixc(c, rgb(0.10f, 0.20f, 0.30f), cl(y - h + 0.5f));
      c = mixc(c, rgb(0.62f, 0.78f, 0.84f), cl(y - h + 0.5f) * cl(h + 4.f + 0.35f * (112.f - h) + 2.f * sinf(xm * 0.3f) - y) * 0.85f);
      h = ridge(xn, 124.f, 4.f, 0.03f, 0.f, 1.5f, 0.08f, 0.f);
      return mixc(c, mixc(rgb(0.34f, 0.54f, 0.62f), rgb(0.20f, 0.34f, 0.44f), cl((y - h) / 20.f)), cl(y - h + 0.5f));
    }
    case 8: {                                                                   // city in the evening
      float k, top, g, wx, wy;
      w = fr(sc[1] + t / 12.f);
      c = mixc(rgb(0.16f, 0.12f, 0.36f), rgb(0.92f, 0.46f, 0.50f), v * 1.05f);
      c = mixc(c, rgb(1.f, 0.97f, 0.9f), y < 50.f ? 0.6f * stars(xf, y, w, 34.f, 0.5f) : 0.f);
      for (int i = 0; i < 2; i++) {
        float cell = i ? 40.f : 27.f, xx = i ? xn : xm;
        g = floorf(xx / cell); k = hs((int) g, i, 51); top = i ? 74.f + 38.f * k : 42.f + 44.f * k;
        a = cl(y - top + 0.5f) * cl(fminf(xx - g * cell, (g + 1.f) * cell - xx) + 0.5f - (i ? 2.f : 0.5f));
        c = mixc(c, i ? rgb(0.11f, 0.10f, 0.24f) : rgb(0.28f, 0.20f, 0.42f), a);
        wx = (xx - g * cell - (i ? 5.f : 3.f)) / 7.f; wy = (y - top - 5.f) / 8.f;
        if (wx > 0.f && wx < (i ? 4.f : 3.f) && wy > 0.f && y < 122.f) {
          float h = hs((int) g * 16 + (int) floorf(wx), (int) floorf(wy), 53 + i), on = h < 0.45f ? 1.f : h < 0.60f ? ss(-0.2f, 0.2f, sinf(TAU * (2.f * w + h * 40.f))) : 0.f;
          float ex = fabsf(fr(wx) - 0.5f) * 7.f, ey = fabsf(fr(wy) - 0.5f) * 8.f;
          c = mixc(c, rgb(1.f, 0.84f, 0.46f), on * a * cl(2.3f - ex) * cl(2.9f - ey) * (i ? 0.95f : 0.55f));
        }
      }
      if (y > 125.f) {                                                          // a road with lamps that go by
        c = mixc(c, rgb(0.10f, 0.09f, 0.16f), cl(y - 125.5f));
        d = len(wrap(xn - 96.f * 4.f * w, 48.f), y - 131.f); c = mixc(c, rgb(1.f, 0.95f, 0.75f), cl(cl(3.2f - d) + 0.35f * ss(10.f, 0.f, d)));
        d = len(wrap(xn + 96.f * 3.f * w, 64.f), y - 139.f); c = mixc(c, rgb(0.98f, 0.25f, 0.20f), cl(cl(3.0f - d) + 0.35f * ss(10.f, 0.f, d)));
      }
      return c;
    }
    default: {                                                                  // under water
      float k, yy, s, h;
      int gx;
      w = fr(sc[1] + t / 12.f);
      c = mixc(rgb(0.20f, 0.70f, 0.86f), rgb(0.03f, 0.20f, 0.46f), v * 1.1f);
      s = (xf - 128.f) / (y + 90.f);                                            // rays from above
      a = 0.5f + 0.5f * sinf(s * 16.f + 1.2f * sinf(TAU * w)) * sinf(s * 7.f + 2.f + 0.8f * sinf(TAU * w + 1.f));
      c = mixc(c, rgb(0.70f, 0.95f, 0.98f), 0.34f * a * ss(1.f, 0.f, v));
      h = ridge(xn, 126.f, 4.f, 0.035f, 1.f, 2.f, 0.08f, 0.f);
      for (int i = 0; i < 2; i++) {                                             // weed
        float cell = 52.f, xx = xm - 26.f * i + 9.f; k = hs((int) floorf(xx / cell), i, 61); q = (H_ - y) / (34.f + 26.f * k);
        d = fabsf(xx - (floorf(xx / cell) + 0.5f) * cell - 7.f * q * sinf(TAU * (2.f * w + k) + 3.f * q));
        c = mixc(c, i ? rgb(0.12f, 0.50f, 0.34f) : rgb(0.07f, 0.38f, 0.36f), q < 1.f && k > 0.25f ? cl(5.f * (1.f - q * 0.8f) - d) : 0.f);
      }
      c = mixc(c, mixc(rgb(0.70f, 0.72f, 0.52f), rgb(0.42f, 0.50f, 0.44f), cl((y - h) / 18.f)), cl(y - h + 0.5f));
      for (int i = 0; i < 2; i++) {                                             // bubbles
        float cell = i ? 54.f : 38.f, R = i ? 4.2f : 2.6f;
        gx = (int) floorf(xm / cell); k = hs(gx, i, 65);
        yy = wrap(y + H_ * ((i ? 3.f : 2.f) * w + k), 144.f); d = len(xm - (gx + 0.3f + 0.4f * k) * cell - 2.f * sinf(y * 0.12f), yy);
        c = mixc(c, rgb(0.88f, 0.98f, 1.f), cl(0.8f * cl(1.2f - fabsf(d - R)) + 0.18f * cl(R - d)));
      }
      return c;
    }
  }
}

FN void pixel(const float *sc, const float *o, int n, float t, int x, int y, unsigned char *out) {
  Rgb c = background(sc, t, x + 0.5f, y + 0.5f);
  float cover = 0.f;
  for (int pass = 0; pass < 2; pass++)                                          // those behind first
    for (int i = 0; i < n; i++)
      if (o[i * NO + 5] > 0.f) {
        Pose p = pose(o + i * NO, t);
        if ((p.depth < 0.f) == (pass == 0)) object(o + i * NO, p, x + 0.5f, y + 0.5f, &c, &cover, i + 1.f);
      }
  out[0] = (unsigned char) (cl(c.r) * 255.f + 0.5f); out[1] = (unsigned char) (cl(c.g) * 255.f + 0.5f); out[2] = (unsigned char) (cl(c.b) * 255.f + 0.5f);
  out[3] = (unsigned char) cover;
}

#ifdef HOST
void render(const float *scenes, const float *objects, const float *t0, unsigned char *out, int clips, int frames, int n) {
  for (int b = 0; b < clips; b++)
    for (int k = 0; k < frames; k++)
      for (int y = 0; y < 144; y++)
        for (int x = 0; x < 256; x++)
          pixel(scenes + b * NS, objects + b * n * NO, n, t0[b] + k / FPS, x, y, out + ((((long) b * frames + k) * 144 + y) * 256 + x) * 4);
}
#else
extern "C" __global__ void render(const float *scenes, const float *objects, const float *t0, unsigned char *out, int frames, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x, k = blockIdx.y, b = blockIdx.z;
  if (i < 144 * 256)
    pixel(scenes + b * NS, objects + (long) b * n * NO, n, t0[b] + k / FPS, i % 256, i / 256, out + (((long) b * frames + k) * 144 * 256 + i) * 4);
}
#endif
