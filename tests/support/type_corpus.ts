/**
 * PostgreSQL's types in their awkward corners: columns, and for each of them the SQL expressions of its values.
 *
 * Expressions mean the same under every setting of the database that writes them: dates in ISO order, and dollar
 * quotes wherever a backslash is meant.
 */

/** A column of the corpus. */
export interface CorpusColumn {
  readonly name: string;
  readonly type: string;
  /** SQL expressions; each is cast to the type. */
  readonly values: readonly string[];
  /** First major release that has the type and all these values. */
  readonly since?: number;
  /** What tells two values apart where their text depends on the release; `%` is the column. */
  readonly compare?: string;
}

/** What the types and the values need to be there; `major` is the older release of a pair. */
export function corpusSchema(major: number): string {
  return `
CREATE EXTENSION hstore; CREATE EXTENSION citext;
CREATE TYPE mood AS ENUM ('sad', 'it''s', 'a "b", (c)', $$back\\slash$$, '', '😀');
CREATE DOMAIN positive AS numeric(20,5) NOT NULL DEFAULT 1 CHECK (value > 0);
CREATE DOMAIN words AS text[] CHECK (cardinality(value) < 10);
CREATE TYPE inner_row AS (a int, b text, c timestamptz);
CREATE TYPE outer_row AS (i inner_row, list inner_row[], n numeric, m mood, w words);
CREATE TYPE textrange AS RANGE (subtype = text, collation = "C");
CREATE TYPE floatrange AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE TABLE "Odd ""name"".x" (id int);
CREATE SCHEMA "Other schema"; CREATE TABLE "Other schema".pg_class (id int);
${major >= 11 ? "CREATE DOMAIN sound_row AS inner_row CHECK ((value).a > 0);" : ""}`;
}

/** Text that is easily broken: every control character, quotes, surrogate pairs, noncharacters, direction marks. */
const TEXTS = [
  "''",
  "' leading and trailing '",
  "(SELECT string_agg(chr(c), '') FROM generate_series(1, 160) c)",
  "E'tab\\t nl\\n cr\\r crlf\\r\\n bs\\b ff\\f vt\\x0b esc\\x1b del\\x7f'",
  "$$\\N$$",
  "$$\\.$$",
  "$$\\\\ \\' \" ' '' $1 ${x} {a,b} (a,b) ,;$$",
  "'NULL'",
  "chr(65279) || chr(65533) || chr(65534) || chr(65535) || chr(1114111) || chr(8232) || chr(8238)",
  "'👩‍👩‍👧‍👦 🇩🇪 é é ﷽ 𝒳 中文 עברית ا'",
  "repeat('compressible ', 80000)",
  "(SELECT string_agg(md5(g::text || random()::text), '') FROM generate_series(1, 32768) g)",
];

const FLOATS = [
  "'0'",
  "'-0'",
  "'NaN'",
  "'Infinity'",
  "'-Infinity'",
  "'0.1'",
  "'-1.5e-30'",
];

/** Every column; those that a pair of releases does not both have are left out by `since`. */
export const CORPUS: readonly CorpusColumn[] = [
  { name: "c_bool", type: "bool", values: ["true", "false"] },
  { name: "c_int2", type: "int2", values: ["'-32768'", "32767", "0"] },
  { name: "c_int4", type: "int4", values: ["'-2147483648'", "2147483647"] },
  {
    name: "c_int8",
    type: "int8",
    values: ["'-9223372036854775808'", "9223372036854775807", "9007199254740993"],
  },
  {
    name: "c_numeric",
    type: "numeric",
    values: [
      "'NaN'",
      "repeat('1234567890', 10)",
      "'-0.' || repeat('0', 99) || '1'",
      "'0.00'",
      "'1.10'",
      "'-0'",
      "'1e131071'",
      "'0.' || repeat('123456789', 1800)",
    ],
  },
  { name: "c_numeric_infinity", type: "numeric", values: ["'Infinity'", "'-Infinity'"], since: 14 },
  {
    name: "c_numeric_scaled",
    type: "numeric(30,10)",
    values: ["'1.1'", "'-12345678901234567890.0123456789'"],
  },
  {
    name: "c_float4",
    type: "float4",
    values: [...FLOATS, "'3.4028235e38'", "'1.17549435e-38'", "'1e-45'", "'16777217'", "'0.3'"],
    compare: "encode(float4send(%), 'hex')",
  },
  {
    name: "c_float8",
    type: "float8",
    values: [
      ...FLOATS,
      "'1.7976931348623157e308'",
      "'2.2250738585072014e-308'",
      "'5e-324'",
      "'9007199254740993'",
      "'0.30000000000000004'",
    ],
    compare: "encode(float8send(%), 'hex')",
  },
  { name: "c_money", type: "money", values: ["'-92233720368547758.08'", "'1234567.89'", "'-0.01'", "'0'"] },
  { name: "c_text", type: "text", values: TEXTS },
  { name: "c_varchar", type: "varchar(20)", values: ["''", "'  x  '", "'😀😀'", "repeat('é', 20)"] },
  { name: "c_char", type: "char(5)", values: ["''", "'a'", "' a'", "'😀'", "'12345'"] },
  { name: "c_byte", type: '"char"', values: ["'a'", "''", "''''", "$$\\$$"] },
  { name: "c_byte_high", type: '"char"', values: ['(-1)::int::"char"', '(-128)::int::"char"'], since: 15 },
  { name: "c_name", type: "name", values: ["''", "repeat('n', 63)", "'quo\"te'"] },
  { name: "c_citext", type: "citext", values: ["'MiXed'", "'mixed'", "''", "'ÉÉ'"] },
  {
    name: "c_bytea",
    type: "bytea",
    values: [
      "(SELECT decode(string_agg(lpad(to_hex(b), 2, '0'), ''), 'hex') FROM generate_series(0, 255) b)",
      "''",
      "$$\\x5c785c00$$",
      "decode(repeat('00ff', 100000), 'hex')",
      "(SELECT decode(string_agg(md5(g::text || random()::text), ''), 'hex') FROM generate_series(1, 16384) g)",
    ],
  },
  {
    name: "c_timestamp",
    type: "timestamp",
    values: [
      "'infinity'",
      "'-infinity'",
      "'4714-11-24 00:00:00 BC'",
      "'294276-12-31 23:59:59.999999'",
      "'0044-03-15 12:34:56.789012 BC'",
      "'1582-10-10 00:00:00.000001'",
      "'2024-02-29 24:00:00'",
      "'1999-12-31 23:59:60'",
    ],
  },
  {
    name: "c_timestamptz",
    type: "timestamptz",
    values: [
      "'infinity'",
      "'-infinity'",
      "'4714-11-24 00:00:00+00 BC'",
      "'294276-12-31 23:59:59.999999+00'",
      "'0001-01-01 00:00:00.000001+00 BC'",
      "'1883-11-18 12:03:58.5-04:56:02'",
      "'2024-03-31 02:30:00.123456+01'",
      "'2024-10-27 01:30:00.654321+00'",
    ],
  },
  {
    name: "c_date",
    type: "date",
    values: [
      "'infinity'",
      "'-infinity'",
      "'4714-11-24 BC'",
      "'5874897-12-31'",
      "'0001-12-31 BC'",
      "'2003-02-01'",
    ],
  },
  {
    name: "c_time",
    type: "time",
    values: ["'00:00'", "'24:00:00'", "'23:59:59.999999'", "'12:34:56.000001'"],
  },
  {
    name: "c_timetz",
    type: "timetz",
    values: ["'24:00:00-15:59:59'", "'00:00:00.1+15:59'", "'12:00:00+05:30'"],
  },
  {
    name: "c_timestamp0",
    type: "timestamptz(0)",
    values: ["'2024-01-02 03:04:05.5+00'", "'0001-02-03 04:05:06+00 BC'"],
  },
  {
    name: "c_interval",
    type: "interval",
    values: [
      "make_interval(years => 1, months => -2, days => 3, secs => -4.000005)",
      "make_interval(months => -13, days => 40, hours => -25)",
      "make_interval(secs => -0.000001)",
      "make_interval(years => -178000000)",
      "make_interval(days => 2147483647, hours => 2000000000)",
      "make_interval()",
      "make_interval(days => -1, hours => 1)",
    ],
  },
  { name: "c_interval_infinity", type: "interval", values: ["'infinity'", "'-infinity'"], since: 17 },
  {
    name: "c_interval_hours",
    type: "interval hour to minute",
    values: ["make_interval(days => -1, hours => 30)"],
  },
  { name: "c_uuid", type: "uuid", values: ["repeat('0', 32)", "repeat('f', 32)", "md5('x')"] },
  { name: "c_bit", type: "bit(9)", values: ["B'000000000'", "B'101010101'"] },
  { name: "c_varbit", type: "varbit", values: ["B''", "B'1'", "repeat('10', 500)"] },
  {
    name: "c_inet",
    type: "inet",
    values: ["'0.0.0.0/0'", "'192.168.1.5/24'", "'::ffff:1.2.3.4'", "'fe80::1/10'", "'1.2.3.4'", "'::/0'"],
  },
  {
    name: "c_cidr",
    type: "cidr",
    values: ["'0.0.0.0/0'", "'10.1.0.0/16'", "'2001:db8::/32'", "'1.2.3.4/32'"],
  },
  { name: "c_macaddr", type: "macaddr", values: ["'00:00:00:00:00:00'", "'ff-ff-ff-ff-ff-ff'"] },
  { name: "c_macaddr8", type: "macaddr8", values: ["'00:11:22:33:44:55:66:77'", "'ff:ff:ff:ff:ff:ff'"] },
  {
    name: "c_point",
    type: "point",
    values: ["'(-0,1e300)'", "'(NaN,Infinity)'", "'(0.1,0.3)'"],
    compare: "encode(point_send(%), 'hex')",
  },
  {
    name: "c_line",
    type: "line",
    values: ["'{1,-1,0.1}'", "'[(0,0),(3,1)]'"],
    compare: "encode(line_send(%), 'hex')",
  },
  {
    name: "c_lseg",
    type: "lseg",
    values: ["'[(0.1,-0),(1e-300,2)]'"],
    compare: "encode(lseg_send(%), 'hex')",
  },
  {
    name: "c_box",
    type: "box",
    values: ["'(0.1,0.2),(-1,-2)'", "'(1,1),(1,1)'"],
    compare: "encode(box_send(%), 'hex')",
  },
  {
    name: "c_path",
    type: "path",
    values: ["'[(0,0),(1,1.1),(2,0)]'", "'((0,0),(1,1),(2,0.7))'"],
    compare: "encode(path_send(%), 'hex')",
  },
  {
    name: "c_polygon",
    type: "polygon",
    values: ["'((0,0),(1,1.3),(2,0))'"],
    compare: "encode(poly_send(%), 'hex')",
  },
  {
    name: "c_circle",
    type: "circle",
    values: ["'<(0.1,-5),2.2>'"],
    compare: "encode(circle_send(%), 'hex')",
  },
  {
    name: "c_json",
    type: "json",
    values: [
      `$$ { "a" : 1, "a" : 2 , "b\\u0000":"\\ud83d\\ude00\\n\\"\\\\" } $$`,
      "'[1e400, 1.10, -0, 12345678901234567890123456789]'",
      "'null'",
      `'""'`,
      `'"😀 it''s"'`,
    ],
  },
  {
    name: "c_jsonb",
    type: "jsonb",
    values: [
      `$$ { "b" : 1.10, "a" : "\\ud83d\\ude00\\n\\"\\\\\\u0001", "a" : null } $$`,
      "'[1e400, -0, 12345678901234567890123456789, [], {}]'",
      "'null'",
      `'"NULL"'`,
    ],
  },
  {
    name: "c_jsonpath",
    type: "jsonpath",
    values: [`'$."a b"[*] ? (@.x > 1.5 && @ like_regex "^\\\\d")'`, "'strict $'"],
    since: 12,
  },
  {
    name: "c_xml",
    type: "xml",
    values: [
      `'<?xml version="1.0" encoding="UTF-8"?><a b="&quot;">ü</a>'`,
      "XMLPARSE(CONTENT 'text <b/> &amp; <c>😀</c>')",
      "XMLPARSE(CONTENT '')",
      "'<!DOCTYPE a><a/>'",
      `'<?xml version="1.0" standalone="yes"?><a/>'`,
      "'<a><![CDATA[<>]]></a>'",
    ],
  },
  {
    name: "c_tsvector",
    type: "tsvector",
    values: [
      `$$'it''s':1A,2B 'back\\\\slash' 'two words':16383 plain:7C$$`,
      "''",
      "to_tsvector('simple', 'Ünï ćode 😀')",
    ],
  },
  {
    name: "c_tsquery",
    type: "tsquery",
    values: [`$$'it''s':AB & !( 'back\\\\slash' | pre:* ) <2> x$$`, "''"],
  },
  {
    name: "c_int_array",
    type: "int[]",
    values: ["'{}'", "'{{1,NULL},{NULL,4}}'", "'[-1:0][2:3]={{1,2},{3,4}}'"],
  },
  {
    name: "c_text_array",
    type: "text[]",
    values: [
      "ARRAY['NULL', NULL, '', ' ', 'null']",
      `ARRAY[['quo"te', 'brace{}'], ['comma,', $$back\\slash$$]]`,
      "ARRAY[E'line\\nbreak', E'\\t', '😀', '\"', '''']",
      `ARRAY[[[NULL, 'a'], ['{', '}']], [['"', $$\\$$], ['(', ')']]]`,
      "ARRAY[NULL, NULL]::text[]",
    ],
  },
  { name: "c_bool_array", type: "bool[]", values: ["'{t,f,NULL}'"] },
  {
    name: "c_float_array",
    type: "float8[]",
    values: ["'{-0,NaN,Infinity,0.1}'"],
    compare: "encode(array_send(%), 'hex')",
  },
  { name: "c_numeric_array", type: "numeric(10,2)[]", values: ["'{NaN,1.1,NULL,-0.005}'"] },
  {
    name: "c_timestamptz_array",
    type: "timestamptz[]",
    values: ["'{infinity,\"0044-03-15 00:00:00.000001+00 BC\",NULL}'"],
  },
  { name: "c_date_array", type: "date[]", values: ["'{-infinity,2003-02-01}'"] },
  {
    name: "c_interval_array",
    type: "interval[]",
    values: ["ARRAY[make_interval(months => -1, days => 1, secs => -1.5), NULL]"],
  },
  {
    name: "c_bytea_array",
    type: "bytea[]",
    values: ["ARRAY[decode('005c22277b7d2c', 'hex'), '', NULL]::bytea[]"],
  },
  { name: "c_json_array", type: "json[]", values: [`ARRAY['{"a": [1, "x,y"]}', 'null', NULL]::json[]`] },
  {
    name: "c_box_array",
    type: "box[]",
    values: ["'{(1,2),(0,0);(1,1),(-1,-1)}'"],
    compare: "encode(array_send(%), 'hex')",
  },
  { name: "c_char_array", type: '"char"[]', values: ["ARRAY['a', '', '\"', NULL]::\"char\"[]"] },
  {
    name: "c_enum",
    type: "mood",
    values: ["'sad'", "'it''s'", "'a \"b\", (c)'", "$$back\\slash$$", "''", "'😀'"],
  },
  {
    name: "c_enum_array",
    type: "mood[]",
    values: ["ARRAY['', 'a \"b\", (c)', $$back\\slash$$, NULL]::mood[]"],
  },
  { name: "c_domain", type: "positive", values: ["'0.00001'", "'NaN'", "999999999999999.99999"] },
  { name: "c_domain_array", type: "words", values: ["ARRAY['a,b', NULL, '\"']", "'{}'"] },
  { name: "c_array_of_domain", type: "positive[]", values: ["ARRAY[1, 2.5]::positive[]"], since: 11 },
  {
    name: "c_composite",
    type: "inner_row",
    values: [
      "ROW(NULL, NULL, NULL)",
      "ROW(1, $$a\"b,(c)\\$$, '0044-03-15 00:00:00+00 BC')",
      "ROW(NULL, '', 'infinity')",
    ],
  },
  {
    name: "c_composite_array",
    type: "inner_row[]",
    values: ["ARRAY[ROW(1, '\"', NULL), ROW(2, NULL, '-infinity'), NULL]::inner_row[]"],
  },
  {
    name: "c_nested",
    type: "outer_row",
    values: [
      `ROW(ROW(1, $$\\"$$, 'infinity'), ARRAY[ROW(2, '{,}', NULL)]::inner_row[], 'NaN', 'a "b", (c)', ARRAY['x y', NULL])`,
      "ROW(NULL, NULL, NULL, NULL, NULL)",
    ],
  },
  { name: "c_domain_row", type: "sound_row", values: ["ROW(1, 'x', 'infinity')"], since: 11 },
  { name: "c_int4range", type: "int4range", values: ["'empty'", "'(,)'", "'[1,5]'", "'[,2147483647)'"] },
  { name: "c_numrange", type: "numrange", values: ["'[1.10,NaN]'", "'(-0.5,1e100)'"] },
  {
    name: "c_tsrange",
    type: "tsrange",
    values: ["'[-infinity,infinity]'", '\'("0044-03-15 00:00:00.000001 BC","2003-02-01 04:05:06"]\''],
  },
  { name: "c_tstzrange", type: "tstzrange", values: ["'[\"2024-03-31 02:30:00+01\",)'", "'(,infinity)'"] },
  {
    name: "c_daterange",
    type: "daterange",
    values: ["'[2003-02-01,infinity]'", "'[0044-03-15 BC,2003-02-01)'"],
  },
  {
    name: "c_textrange",
    type: "textrange",
    values: [`textrange('', 'a"b,(')`, "textrange($$\\$$, NULL)", "textrange(NULL, '')"],
  },
  {
    name: "c_floatrange",
    type: "floatrange",
    values: ["'[0.1,Infinity]'", "'(,0.3)'"],
    compare: "encode(range_send(%), 'hex')",
  },
  { name: "c_range_array", type: "int4range[]", values: ['\'{"[1,2)",empty,NULL,"(,)"}\''] },
  { name: "c_multirange", type: "int4multirange", values: ["'{}'", "'{[1,2),[5,)}'"], since: 14 },
  {
    name: "c_tstzmultirange",
    type: "tstzmultirange",
    values: ["'{(,\"2003-02-01 00:00:00+00\"),[infinity,]}'"],
    since: 14,
  },
  {
    name: "c_textmultirange",
    type: "textmultirange",
    values: [`textmultirange(textrange('"', 'a'), textrange('b,{', 'c}'))`],
    since: 14,
  },
  { name: "c_oid", type: "oid", values: ["4294967295", "0"] },
  { name: "c_xid", type: "xid", values: ["'4294967295'"] },
  { name: "c_cid", type: "cid", values: ["'1'"] },
  { name: "c_tid", type: "tid", values: ["'(4294967295,65535)'"] },
  { name: "c_oidvector", type: "oidvector", values: ["'1 2 3'"] },
  { name: "c_int2vector", type: "int2vector", values: ["'-1 0 1'"] },
  { name: "c_xid8", type: "xid8", values: ["'18446744073709551615'"], since: 13 },
  { name: "c_pg_lsn", type: "pg_lsn", values: ["'0/0'", "'FFFFFFFF/FFFFFFFF'", "'16/B374D848'"] },
  { name: "c_txid_snapshot", type: "txid_snapshot", values: ["'10:20:10,14,15'"] },
  { name: "c_pg_snapshot", type: "pg_snapshot", values: ["'10:20:10,14,15'"], since: 13 },
  {
    name: "c_regclass",
    type: "regclass",
    values: [`'public."Odd ""name"".x"'`, `'"Other schema".pg_class'`, "'pg_catalog.pg_class'", "0"],
  },
  { name: "c_regtype", type: "regtype", values: ["'public.mood'", "'timestamptz'", "'public.inner_row[]'"] },
  { name: "c_regproc", type: "regproc", values: ["'pg_catalog.pg_sleep'"] },
  {
    name: "c_regprocedure",
    type: "regprocedure",
    values: ["'pg_catalog.abs(int)'", "'public.akeys(public.hstore)'"],
  },
  { name: "c_regoperator", type: "regoperator", values: ["'pg_catalog.+(int,int)'"] },
  { name: "c_regrole", type: "regrole", values: ["'postgres'"] },
  { name: "c_regnamespace", type: "regnamespace", values: ["'\"Other schema\"'"] },
  { name: "c_regconfig", type: "regconfig", values: ["'pg_catalog.english'"] },
  { name: "c_regcollation", type: "regcollation", values: ["'pg_catalog.\"C\"'"], since: 13 },
  {
    name: "c_hstore",
    type: "hstore",
    values: [`$$"a"=>NULL, "b"=>"", "q\\"uote"=>"\\\\", "NULL"=>"NULL", "😀"=>"x=>y,z"$$`, "''"],
  },
  {
    name: "c_hstore_array",
    type: "hstore[]",
    values: [`ARRAY[hstore('a', NULL), hstore('"', '{,}'), NULL]`],
  },
];
