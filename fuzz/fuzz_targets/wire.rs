//! Changes to a file as a tree of protobuf fields: lengths around a change stay right, so that what
//! lies behind it is still read.

/// One field: its key, and what it holds.
#[derive(Clone, Debug)]
struct Field {
    number: u64,
    value: Value,
}

#[derive(Clone, Debug)]
enum Value {
    Number(u64),
    Fixed(Vec<u8>),
    Bytes(Vec<u8>),
    Message(Vec<Field>),
}

const DEPTH: usize = 12;
const NUMBERS: [u64; 16] = [
    0, 1, 2, 3, 7, 8, 16, 100, 1 << 20, 1 << 31, 1 << 32, 1 << 40, 1 << 60, i64::MAX as u64, 1 << 63, u64::MAX,
];

/// Returns the bytes after one to four changes, at most `most` of them.
pub fn mutate(data: &[u8], seed: u32, most: usize) -> Vec<u8> {
    let mut random = Random(u64::from(seed) << 20 | 0x9e37);
    let Some(mut fields) = parse(data, 0) else { return data[..data.len().min(most)].to_vec() };
    let texts = texts(&fields);
    for _ in 0..=random.below(4) {
        change(&mut fields, &texts, &mut random);
    }
    let made = encode(&fields);
    if made.len() <= most { made } else { data[..data.len().min(most)].to_vec() }
}

fn change(fields: &mut Vec<Field>, texts: &[Vec<u8>], random: &mut Random) {
    if fields.is_empty() {
        return;
    }
    let index = random.below(fields.len());
    if let Value::Message(inner) = &mut fields[index].value
        && random.below(8) != 0
    {
        return change(inner, texts, random);
    }
    let other = random.below(fields.len());
    match random.below(10) {
        0 => drop(fields.remove(index)),
        1 => fields.insert(other, fields[index].clone()),
        2 => fields.swap(index, other),
        3 => fields[index].value = fields[other].value.clone(),
        4 => fields[index].number = 1 + random.below(30) as u64,
        _ => match &mut fields[index].value {
            Value::Number(number) => {
                *number = match random.below(4) {
                    0 => number.wrapping_add(1),
                    1 => number.wrapping_sub(1),
                    2 => random.below(32) as u64,
                    _ => NUMBERS[random.below(NUMBERS.len())],
                }
            }
            Value::Fixed(bytes) => bytes.iter_mut().for_each(|byte| *byte ^= random.below(256) as u8),
            Value::Bytes(bytes) if random.below(2) == 0 && !texts.is_empty() => {
                bytes.clone_from(&texts[random.below(texts.len())]);
            }
            Value::Bytes(bytes) if random.below(2) == 0 => {
                const OPERATORS: &str = include_str!("operators.txt");
                let names: Vec<&str> = OPERATORS.split_whitespace().collect();
                *bytes = names[random.below(names.len())].as_bytes().to_vec();
            }
            Value::Bytes(bytes) if bytes.is_empty() || random.below(3) == 0 => bytes.push(random.below(256) as u8),
            Value::Bytes(bytes) => {
                let place = random.below(bytes.len());
                bytes[place] = NUMBERS[random.below(NUMBERS.len())] as u8;
            }
            Value::Message(inner) => inner.reverse(),
        },
    }
}

/// Returns the short strings of the file, which are names for the most part.
fn texts(fields: &[Field]) -> Vec<Vec<u8>> {
    let of = |field: &Field| match &field.value {
        Value::Bytes(bytes) if bytes.len() < 64 => vec![bytes.clone()],
        Value::Message(inner) => texts(inner),
        _ => Vec::new(),
    };
    fields.iter().flat_map(of).collect()
}

fn parse(mut data: &[u8], depth: usize) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !data.is_empty() {
        let key = varint(&mut data)?;
        let number = key >> 3;
        if number == 0 || number > 4096 {
            return None;
        }
        let value = match key & 7 {
            0 => Value::Number(varint(&mut data)?),
            1 => Value::Fixed(take(&mut data, 8)?),
            5 => Value::Fixed(take(&mut data, 4)?),
            2 => {
                let length = usize::try_from(varint(&mut data)?).ok()?;
                let bytes = take(&mut data, length)?;
                // Text parses as a message now and then; a message has more than one byte of key and length.
                match if depth < DEPTH && bytes.len() > 1 { parse(&bytes, depth + 1) } else { None } {
                    Some(inner) => Value::Message(inner),
                    None => Value::Bytes(bytes),
                }
            }
            _ => return None,
        };
        fields.push(Field { number, value });
    }
    Some(fields)
}

fn take(data: &mut &[u8], count: usize) -> Option<Vec<u8>> {
    let (head, rest) = data.split_at_checked(count)?;
    *data = rest;
    Some(head.to_vec())
}

fn varint(data: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = data.split_first()?;
        *data = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn encode(fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    for field in fields {
        let (kind, bytes) = match &field.value {
            Value::Number(_) => (0, Vec::new()),
            Value::Fixed(bytes) => (if bytes.len() == 8 { 1 } else { 5 }, bytes.clone()),
            Value::Bytes(bytes) => (2, bytes.clone()),
            Value::Message(inner) => (2, encode(inner)),
        };
        put(field.number << 3 | kind, &mut out);
        match &field.value {
            Value::Number(number) => put(*number, &mut out),
            _ if kind == 2 => put(bytes.len() as u64, &mut out),
            _ => {}
        }
        out.extend(bytes);
    }
    out
}

fn put(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A small generator: the same seed gives the same change.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % most
    }
}
