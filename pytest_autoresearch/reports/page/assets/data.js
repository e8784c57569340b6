// The campaign's data, and the details of an experiment, which are unpacked on demand.

const campaign = JSON.parse(document.getElementById('campaign').textContent);
const rows = campaign.rows;
const total = rows.number.length;
const KEEP = 0, DISCARD = 1, CRASH = 2;
const WORDS = ['kept', 'discarded', 'crashed'];
const CLASSES = ['keep', 'discard', 'crash'];
const REASONS = { regression: 'not better', 'not-improved': 'not better', 'within-noise': 'within noise', hopeless: 'stopped early' };
const minimize = campaign.direction === 'minimize';
const placeOf = new Map(rows.number.map((number, place) => [number, place]));
const known = new Set(campaign.with);
const chain = campaign.chain;
const bestPlace = chain.length ? placeOf.get(chain[chain.length - 1].number) : undefined;

const isBaseline = (place) => rows.number[place] === 0;
const reasonOf = (place) => rows.reasons[rows.reason[place]];
const reasonWords = (place) => REASONS[reasonOf(place)] ?? reasonOf(place);
const proposerOf = (place) => rows.proposers[rows.proposer[place]];

const packs = [...document.querySelectorAll('script.pack')];
const unpacked = new Map();

// Unpacking needs no network: the data is in this file.
async function unpack(pack) {
  const letters = atob(packs[pack].textContent);
  const bytes = Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  return JSON.parse(await new Response(stream).text());
}

async function detailsOf(place) {
  const pack = Math.floor(place / campaign.pack);
  if (!unpacked.has(pack)) unpacked.set(pack, unpack(pack));
  return (await unpacked.get(pack))[place % campaign.pack];
}

const haystacks = [];
function haystack(place) {
  haystacks[place] ??= [
    String(rows.number[place]).padStart(4, '0'), rows.text[place], rows.area[place], WORDS[rows.status[place]],
    reasonOf(place), reasonWords(place), proposerOf(place),
  ].join('\n').toLowerCase();
  return haystacks[place];
}
