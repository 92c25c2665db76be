// The check of signatures as the documentation prints it, between the two lines, in an Express app.
const express = require('express');
const app = express();
app.use(express.json());
const SECRET = process.argv[2];
// ————
// Node.js webhook verification
const crypto = require('crypto');
function verifyWebhook(body, signature, secret) {
const expected = crypto
.createHmac('sha256', secret)
.update(body)
.digest('hex');
return crypto.timingSafeEqual(
Buffer.from(signature),
Buffer.from(expected)
);
}
// In your webhook handler:
app.post('/webhook', (req, res) => {
const sig = req.headers['x-webhook-signature'];
if (!verifyWebhook(JSON.stringify(req.body), sig, SECRET)) {
return res.status(401).send('Invalid signature');
}
const { type, data } = req.body;
// Process event...
res.status(200).send('OK');
});
// ————
const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port));
