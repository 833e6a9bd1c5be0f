// Uploads a file with tus-js-client in node. argv: its folder, the endpoint, the file, the key, and options as JSON.
// Prints the upload's URL.
import { createReadStream } from "node:fs";
import { createRequire } from "node:module";

const [packages, endpoint, file, key, options] = process.argv.slice(2);
const tus = createRequire(`${packages}/package.json`)("tus-js-client");
const upload = new tus.Upload(createReadStream(file), {
  endpoint,
  retryDelays: [0, 100, 200, 400, 800, 1600],
  metadata: { key, filetype: "text/x-test" },
  onError: (error) => {
    console.error(String(error));
    process.exitCode = 1;
  },
  onSuccess: () => console.log(upload.url),
  ...JSON.parse(options),
});
upload.start();
