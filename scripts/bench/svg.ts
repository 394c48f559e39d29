/**
 * The few shapes that the plot is made of, as SVG text (https://www.w3.org/TR/SVG11/).
 */

/** Lengths are pixels, from the top left. */
export interface Box {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** A filled box. */
export function rectangle({ x, y, width, height }: Box, fill: string, attributes = ""): string {
  return `<rect x="${px(x)}" y="${px(y)}" width="${px(width)}" height="${px(height)}" fill="${fill}"${
    attributes && " " + attributes
  }/>`;
}

/** A straight line. */
export function line(from: readonly [number, number], to: readonly [number, number], stroke: string): string {
  const [[x1, y1], [x2, y2]] = [from.map(px), to.map(px)];
  return `<path d="M${x1} ${y1}L${x2} ${y2}" ${stroke}/>`;
}

/** Text whose middle is at `y`; `anchor` says what is at `x`. */
export function text(
  [x, y]: readonly [number, number],
  content: string,
  { anchor = "start", style = "" }: { anchor?: "start" | "middle" | "end"; style?: string } = {},
): string {
  const place = `x="${px(x)}" y="${px(y)}" dy="0.35em" text-anchor="${anchor}"`;
  return `<text ${place}${style && ` class="${style}"`}>${escape(content)}</text>`;
}

/** An image of its own size, white so that it reads the same on a dark page. */
export function document(
  { width, height, style, title }: { width: number; height: number; style: string; title: string },
  shapes: readonly string[],
): string {
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img">`,
    `<title>${escape(title)}</title>`,
    `<style>${style}</style>`,
    rectangle(
      { x: 0.5, y: 0.5, width: width - 1, height: height - 1 },
      "#ffffff",
      'rx="8" stroke="#d0d7de"',
    ),
    ...shapes,
    "</svg>\n",
  ].join("\n");
}

function px(length: number): string {
  return String(Math.round(length * 10) / 10);
}

function escape(content: string): string {
  return content.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
