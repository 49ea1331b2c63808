// How an image is cut: windows of one size that overlap by twice the halo at least, as few as
// suffice and no larger than that takes. Each gives
// its core; a pixel of a core is a halo away from every cut, so it is that of the whole image.

/**
 * Windows along one side.
 * @param {number} length pixels of the image along this side
 * @param {number} edge largest window, more than twice the halo
 * @param {number} halo pixels that a result depends on, to each side
 * @returns {{start: number, size: number, from: number, to: number}[]} where a window starts, how
 *   long it is, and the core that it contributes
 */
export function windows(length, edge, halo) {
  const count = length <= edge ? 1 : Math.ceil((length - 2 * halo) / (edge - 2 * halo));
  const size = count === 1 ? length : Math.ceil((length - 2 * halo) / count) + 2 * halo;
  const starts = Array.from({ length: count }, (_, step) =>
    count === 1 ? 0 : Math.floor((step * (length - size)) / (count - 1)));
  return starts.map((start, step) => ({
    start,
    size,
    from: step === 0 ? 0 : Math.ceil((starts[step - 1] + size + start) / 2),
    to: step === count - 1 ? length : Math.ceil((start + size + starts[step + 1]) / 2),
  }));
}

/**
 * Tiles of an image, row by row.
 * @returns {{x: object, y: object}[]}
 */
export function tiles(width, height, edge, halo) {
  const columns = windows(width, edge, halo);
  return windows(height, edge, halo).flatMap((y) => columns.map((x) => ({ x, y })));
}
