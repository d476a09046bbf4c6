// Token ids of Hugging Face's library against ids on standard input ({"ids":[...]}, a line for each text; a BOS in front of
// them is passed over). Prints the texts that differ and how, and "N of M texts differ"; exits 1 where more than --most do.
//
//   node hf_tokens.mjs PACKAGES TOKENIZER.json [--most N] TEXT... <IDS
import {createRequire} from 'node:module'
import {readFileSync} from 'node:fs'
import {basename, resolve} from 'node:path'

let [packages, json, ...texts] = process.argv.slice(2)
let most = 0
if (texts[0] === '--most') {
    most = Number(texts[1])
    texts = texts.slice(2)
}
const {Tokenizer} = createRequire(resolve(packages, 'package.json'))('tokenizers')
const tokenizer = Tokenizer.fromFile(json)
const lines = readFileSync(0, 'utf8').trimEnd().split('\n')
if (lines.length !== texts.length)
    throw new Error(`${lines.length} lines for ${texts.length} texts`)
const bos = (await tokenizer.encode('')).getIds()[0] ?? JSON.parse(lines[0]).ids[0]
let differ = 0
for (const [i, text] of texts.entries()) {
    const theirs = (await tokenizer.encode(readFileSync(text, 'utf8'), null, {addSpecialTokens: false})).getIds()
    let ours = JSON.parse(lines[i]).ids
    if (ours.length === theirs.length + 1 && ours[0] === bos)
        ours = ours.slice(1)
    let at = 0
    while (at < ours.length && at < theirs.length && ours[at] === theirs[at])
        at++
    if (at === ours.length && at === theirs.length)
        continue
    differ++
    const shown = async ids => JSON.stringify(await tokenizer.decode([...ids.slice(Math.max(at - 2, 0), at + 4)], false))
    console.log(`${basename(text)}: id ${at} is ${ours[at]} (${await shown(ours)}), ` +
        `right ${theirs[at]} (${await shown(theirs)})`)
}
console.log(`${differ} of ${texts.length} texts differ`)
process.exitCode = differ > most ? 1 : 0
