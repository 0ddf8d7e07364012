// Reads the bit strip (edged/tools/bitstrip.py) of each presented frame; injected into a page with a <video>.
// window.glass: { samples: [[counter, presentedMs], ...], unread: frames without a readable strip }
(() => {
  const CELLS = 40, ROW_DIVISOR = 45, CONTRAST_MIN = 48, SAMPLES_MAX = 100_000;
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const glass = (window.glass = { samples: [], unread: 0 });

  function check(counter) {
    let sum = 0xa;
    for (let place = 0; place < 8; place++) {
      const nibble = (counter >>> (4 * place)) & 0xf;
      const turn = place % 4;
      sum ^= ((nibble << turn) | (nibble >>> (4 - turn))) & 0xf;
    }
    return sum;
  }

  // The counter of cells (an array of 40 booleans), or null: the counterpart of cells_counter().
  glass.decode = (cells) => {
    if (!(cells[0] && !cells[1] && !cells[38] && cells[39])) return null;
    let counter = 0;
    for (let i = 2; i < 34; i++) counter = ((counter << 1) | (cells[i] ? 1 : 0)) >>> 0;
    let found = 0;
    for (let i = 34; i < 38; i++) found = (found << 1) | (cells[i] ? 1 : 0);
    return found === check(counter) ? counter : null;
  };

  // The middle of each cell, averaged, as green: nearest to luma, and the strip is grey.
  glass.read = (source, width, height) => {
    const high = height / ROW_DIVISOR;
    const lines = Math.ceil(2 * high);
    if (canvas.width !== width || canvas.height !== lines) [canvas.width, canvas.height] = [width, lines];
    context.drawImage(source, 0, 0, width, lines, 0, 0, width, lines);
    const { data } = context.getImageData(0, 0, width, lines);
    const mean = (left, right, top, bottom) => {
      let sum = 0, count = 0;
      for (let y = Math.floor(top); y < Math.max(Math.floor(top) + 1, Math.floor(bottom)); y++)
        for (let x = Math.floor(left); x < Math.max(Math.floor(left) + 1, Math.floor(right)); x++, count++)
          sum += data[4 * (y * width + x) + 1];
      return sum / count;
    };
    const cells = [];
    for (let i = 0; i < CELLS; i++) {
      const left = (width * (i + 0.25)) / CELLS, right = (width * (i + 0.75)) / CELLS;
      const upper = mean(left, right, 0.25 * high, 0.75 * high);
      const lower = mean(left, right, 1.25 * high, 1.75 * high);
      if (Math.abs(upper - lower) < CONTRAST_MIN) return null;
      cells.push(upper > lower);
    }
    return glass.decode(cells);
  };

  const video = document.querySelector("video");
  const onFrame = () => {
    const presentedMs = Date.now();
    const counter = glass.read(video, video.videoWidth, video.videoHeight);
    if (counter === null) glass.unread += 1;
    else if (glass.samples.length < SAMPLES_MAX) glass.samples.push([counter, presentedMs]);
    video.requestVideoFrameCallback(onFrame);
  };
  video?.requestVideoFrameCallback(onFrame);
})();
