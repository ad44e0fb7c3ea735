// What a Node.js function sees of the machine that it runs on: next to nothing.
//
//   lyra deploy examples/node-inside --runtime nodejs
//   lyra invoke node-inside
const { readdirSync, writeFileSync } = require('node:fs');
const { networkInterfaces } = require('node:os');

const mayWrite = (directory) => {
  try {
    writeFileSync(`${directory}/probe`, '');
    return true;
  } catch {
    return false;
  }
};

exports.handler = async () => ({
  processes: readdirSync('/proc').filter((name) => /^\d+$/.test(name)).length,
  interfaces: Object.keys(networkInterfaces()),
  writable: ['/', '/etc', '/usr', '/var/task', '/tmp'].filter(mayWrite),
});
