// What the pages of all players have. A picture of the film shows its time in seconds: eight fields at its upper edge
// are white or black, which is the number in binary, from the left.
const source = new URL(location.href).searchParams.get("source");
const FIELDS = 8;
const WINDOW_S = 10; // seconds of film after a seek in which a picture counts as one after the seek

function film() {
  return document.querySelector("video");
}

function secondsShown() {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [640, 360];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(film(), 0, 0, canvas.width, canvas.height);
  let seconds = 0;
  for (let field = 0; field < FIELDS; field += 1) {
    const [red] = context.getImageData(80 * field + 40, 20, 1, 1).data;
    seconds += red > 128 ? 2 ** field : 0;
  }
  return seconds;
}

// Resolve to the first picture from that time on: its time for the player, and the time that it shows.
function shown(from, until = from + WINDOW_S) {
  return new Promise((resolve) => {
    const look = (_, { mediaTime }) => {
      if (mediaTime >= from && mediaTime < until) resolve({ time: mediaTime, seconds: secondsShown() });
      else film().requestVideoFrameCallback(look);
    };
    film().requestVideoFrameCallback(look);
  });
}

// Resolve to a picture half a second after that place.
function seek(to) {
  film().currentTime = to;
  return shown(to + 0.5);
}

// Resolve to the time that the last picture shows, once the film has ended.
async function ended() {
  if (!film().ended) await new Promise((resolve) => film().addEventListener("ended", resolve));
  return secondsShown();
}

film().muted = true;
film().addEventListener("error", () => console.error(`video: ${film().error.message}`));
