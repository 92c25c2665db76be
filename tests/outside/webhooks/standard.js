// A receiver that trusts the library of Standard Webhooks.
const http = require('node:http');
const { Webhook } = require('standardwebhooks');
const webhook = new Webhook(process.argv[2]);
const server = http.createServer(async (req, res) => {
  const pieces = [];
  for await (const piece of req) pieces.push(piece);
  try {
    webhook.verify(Buffer.concat(pieces).toString(), req.headers);
    res.writeHead(200).end('OK');
  } catch (error) {
    res.writeHead(401).end(String(error));
  }
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
