-- A ledger of schema version 1, as the first release of the format wrote it (sqlite3 .dump).
BEGIN TRANSACTION;
CREATE TABLE ledger_accounts (
	dataset TEXT NOT NULL, 
	unit TEXT NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (dataset, unit)
);
INSERT INTO "ledger_accounts" VALUES('table','record','1d7a7e7375ce253934dc086baf62c22699b0ce2bd54abcee7daefd5ea0bc820e','{"accountant":"rdp","charges":3,"dataset":"table","delta":"0.00001","epsilon_budget":"8","epsilon_spent":"0.821137111","total":{"adjacency":"add-or-remove-one","distance":"0.000000000000000000000000000003","terms":[{"count":3,"mechanism":{"kind":"poisson-gaussian","noise_multiplier":"1.1","sampling_rate":"0.01"}}]},"unit":"record"}');
CREATE TABLE ledger_checkpoints (
	size INTEGER NOT NULL, 
	note TEXT NOT NULL, 
	PRIMARY KEY (size)
);
INSERT INTO "ledger_checkpoints" VALUES(1,'privagg.ledger/hospital-a
1
HVzPILaogZAu+YlM9EAAKc6QJ/BgzCiAuPONspNp4eA=

— privagg.ledger/hospital-a oZBv9K12yqw69cGX1WwtwLyleWAK36oQD2OBaPLRD/8MsQn6xzILVIf7ws/hqE5yo3KWcDL9F68EuYubw3jwxikYqAM=
');
INSERT INTO "ledger_checkpoints" VALUES(2,'privagg.ledger/hospital-a
2
H3msGBofW5eIr5hnm+SWHvo6nJx98H1LBT2hyVOfifM=

— privagg.ledger/hospital-a oZBv9IOk9dVHK9qR45jB5g6M1oiOxZuMrtiK5MDqaS7qGzb1wcy6yAYaVFVlkEe46tAiTZw4A03zBg7LF782GV7IRgo=
');
INSERT INTO "ledger_checkpoints" VALUES(3,'privagg.ledger/hospital-a
3
VTonxvQp5zu+2Se8gE+tQiGU3QjdIvt3Cpw4gdpCGFM=

— privagg.ledger/hospital-a oZBv9DtvQZr8iFs9pvqiQ9hF19nXRIRM6my/maHR7qbho1XQbTL5LwvmFpQSkQr/plQqMXMtRSHmaQmBq523+y6PJgE=
');
INSERT INTO "ledger_checkpoints" VALUES(4,'privagg.ledger/hospital-a
4
idx6cp8EuDFNJjBSfpNoA4WcX2gOYkjBkx+dFdJWH/8=

— privagg.ledger/hospital-a oZBv9OyH7Xuk3oT/Ph5F7is879Xg0Mtl2sNbMU447oTl+Dlibd9tOb7O+CKwvhBVQmPMpXaAoGtWYDnLrrstEDdQIAA=
');
INSERT INTO "ledger_checkpoints" VALUES(5,'privagg.ledger/hospital-a
5
SXBVRGdpY7ugDxEPgGqbyJg575Pw15yJq1ivdVxUKBs=

— privagg.ledger/hospital-a oZBv9Gtpjf5UTP32VPQbMWRfZYVM1oLUmRLnbCAfkVbg99GQNdVoCxDI8FsFJbYOcSSN77VcYY5hkprvzWC5crvLpg0=
');
INSERT INTO "ledger_checkpoints" VALUES(6,'privagg.ledger/hospital-a
6
uk3LYy5/eGyQDClEqk78UeAdZq3uU2czz7CbVP1BqcM=

— privagg.ledger/hospital-a oZBv9PTkUtsVelNiVVt6l7akU3n80MDUrM595hx7xtFNylLf+eCgIue6PAwPT1S28GSLHHJe8gxBgV3iwXjJKDrqBAw=
');
INSERT INTO "ledger_checkpoints" VALUES(7,'privagg.ledger/hospital-a
7
mB2dmmfTJwsaNHQJgNu6FxzcduTq0Jrx5OP2eT0Snnc=

— privagg.ledger/hospital-a oZBv9OmK7OlSerbg3V0GAEhNpnR6hOHAAJVcZ/SJHqk/i594lzpTVSBgRNQFxJGche+FlqOP+GdNNtKjuhyCMA7EGA8=
');
INSERT INTO "ledger_checkpoints" VALUES(8,'privagg.ledger/hospital-a
8
mNw7r4Cq/CaYXctvtyKtfCb7JIwuJBUosJSVrs+N9XY=

— privagg.ledger/hospital-a oZBv9IFd83ljaTQLvR4UJ3UYHf72QK2n1oDodrbZqqTn/z89WYFHbDpm4VpYtVhZvQDkxmPfLFSVWjfC4+O6X3gPrgI=
');
INSERT INTO "ledger_checkpoints" VALUES(9,'privagg.ledger/hospital-a
9
O5YrLsehLuNs0lpp441rqy0szlokXYk6rjrRozWu2+k=

— privagg.ledger/hospital-a oZBv9MhDpeHPE/GPRjYFFv5kVpqdNTmC0S0b6g3M1yDZtWDOiDhb20kNj7HMfZAEDS51qfEo3Y3niDF9FDrEVJ9kDg0=
');
INSERT INTO "ledger_checkpoints" VALUES(10,'privagg.ledger/hospital-a
10
ctMVcZIzB5Lu9kL69NU0dPSlP74UgrZHnU9y/sBzO3k=

— privagg.ledger/hospital-a oZBv9Oi/pe05KZj22mpUVmCgubwRqggRSl0Iyain3rsZVN/lTInxWSz3U+EtMHncGZzSnYf/XsyoHkJ8xpvnOSngtgc=
');
CREATE TABLE ledger_entries (
	idx INTEGER NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	subject TEXT, 
	account TEXT, 
	body TEXT NOT NULL, 
	PRIMARY KEY (idx), 
	CONSTRAINT ledger_entries_once UNIQUE (kind, subject)
);
INSERT INTO "ledger_entries" VALUES(0,'created',NULL,NULL,'{"index":0,"kind":"created","payload":{"origin":"privagg.ledger/hospital-a","owner":"hospital-a","software":"privagg ledger, entry format 1","verifier":"privagg.ledger/hospital-a+a1906ff4+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"},"state":"d52a75d3b2953b9eb9137be8439f7c732386826de75b155566f14456308809dc","time":"2026-01-02T03:04:05Z","version":1}');
INSERT INTO "ledger_entries" VALUES(1,'budget',NULL,'["table","record"]','{"index":1,"kind":"budget","payload":{"dataset":"table","delta":"0.00001","epsilon":"8","unit":"record","who":"officer","why":"approved"},"state":"bfcbbe07bb0b81bcad70e661a7af82c0996b45293436cc4d5cdfd7c8500e2ac5","time":"2026-01-02T03:04:05Z","version":1}');
INSERT INTO "ledger_entries" VALUES(2,'charge','["run",0,0,"table","record"]','["table","record"]','{"index":2,"kind":"charge","payload":{"accountant":"rdp","attempt":0,"certified":false,"dataset":"table","delta":"0.00001","epsilon_after":"0.775103126","epsilon_before":"0","epsilon_budget":"8","event":{"adjacency":"add-or-remove-one","distance":"0.000000000000000000000000000001","terms":[{"count":1,"mechanism":{"kind":"poisson-gaussian","noise_multiplier":"1.1","sampling_rate":"0.01"}}]},"facts":{"clip_norm_l2":"1","cohort":["a","b"]},"method":"Renyi orders in double precision (dp-accounting)","plan_digest":"abababababababababababababababababababababababababababababababab","round":0,"run":"run","unit":"record"},"state":"bda4ebf47d3ca40256b3579c8e13f761d09e54ac8a88c9cdffd1ec5b4d2345ac","time":"2026-01-02","version":1}');
INSERT INTO "ledger_entries" VALUES(3,'consumed','["run",0,0,"table","record"]','["table","record"]','{"index":3,"kind":"consumed","payload":{"attempt":0,"charge":2,"dataset":"table","round":0,"run":"run","unit":"record"},"state":"bda4ebf47d3ca40256b3579c8e13f761d09e54ac8a88c9cdffd1ec5b4d2345ac","time":"2026-01-02","version":1}');
INSERT INTO "ledger_entries" VALUES(4,'upload','["run",0,0]',NULL,'{"index":4,"kind":"upload","payload":{"attempt":0,"charge":2,"length_bytes":8,"round":0,"run":"run","sha256":"423ae7daffba3f0352f9a9eec595f4735e35a61fcdcd5091cdb1fe7fde99c883"},"state":"bda4ebf47d3ca40256b3579c8e13f761d09e54ac8a88c9cdffd1ec5b4d2345ac","time":"2026-01-02","version":1}');
INSERT INTO "ledger_entries" VALUES(5,'charge','["run",1,0,"table","record"]','["table","record"]','{"index":5,"kind":"charge","payload":{"accountant":"rdp","attempt":0,"certified":false,"dataset":"table","delta":"0.00001","epsilon_after":"0.816488645","epsilon_before":"0.775103126","epsilon_budget":"8","event":{"adjacency":"add-or-remove-one","distance":"0.000000000000000000000000000001","terms":[{"count":1,"mechanism":{"kind":"poisson-gaussian","noise_multiplier":"1.1","sampling_rate":"0.01"}}]},"facts":{"clip_norm_l2":"1","cohort":["a","b"]},"method":"Renyi orders in double precision (dp-accounting)","plan_digest":"abababababababababababababababababababababababababababababababab","round":1,"run":"run","unit":"record"},"state":"ef72c4bb0d784f9a6f67178d74519c29557aa89ad86e03b87aa11344b800bfb4","time":"2026-01-02","version":1}');
INSERT INTO "ledger_entries" VALUES(6,'consumed','["run",1,0,"table","record"]','["table","record"]','{"index":6,"kind":"consumed","payload":{"attempt":0,"charge":5,"dataset":"table","round":1,"run":"run","unit":"record"},"state":"ef72c4bb0d784f9a6f67178d74519c29557aa89ad86e03b87aa11344b800bfb4","time":"2026-01-02","version":1}');
INSERT INTO "ledger_entries" VALUES(7,'upload','["run",1,0]',NULL,'{"index":7,"kind":"upload","payload":{"attempt":0,"charge":5,"length_bytes":8,"round":1,"run":"run","sha256":"5b081f07a858362291455e5fedecd412b616d04e4c08de88b1d1e19fcfcae6f8"},"state":"ef72c4bb0d784f9a6f67178d74519c29557aa89ad86e03b87aa11344b800bfb4","time":"2026-01-02","version":1}');
INSERT INTO "ledger_entries" VALUES(8,'charge','["run",2,0,"table","record"]','["table","record"]','{"index":8,"kind":"charge","payload":{"accountant":"rdp","attempt":0,"certified":false,"dataset":"table","delta":"0.00001","epsilon_after":"0.821137111","epsilon_before":"0.816488645","epsilon_budget":"8","event":{"adjacency":"add-or-remove-one","distance":"0.000000000000000000000000000001","terms":[{"count":1,"mechanism":{"kind":"poisson-gaussian","noise_multiplier":"1.1","sampling_rate":"0.01"}}]},"facts":{"clip_norm_l2":"1","cohort":["a","b"]},"method":"Renyi orders in double precision (dp-accounting)","plan_digest":"abababababababababababababababababababababababababababababababab","round":2,"run":"run","unit":"record"},"state":"eb5810a0dd4838ef29bbf3ce2692c3a1bca9a71f6677e8663ad3d07435217810","time":"2026-01-02","version":1}');
INSERT INTO "ledger_entries" VALUES(9,'consumed','["run",2,0,"table","record"]','["table","record"]','{"index":9,"kind":"consumed","payload":{"attempt":0,"charge":8,"dataset":"table","round":2,"run":"run","unit":"record"},"state":"eb5810a0dd4838ef29bbf3ce2692c3a1bca9a71f6677e8663ad3d07435217810","time":"2026-01-02","version":1}');
CREATE TABLE ledger_meta (
	name VARCHAR(64) NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "ledger_meta" VALUES('schema_version','1');
INSERT INTO "ledger_meta" VALUES('owner','hospital-a');
INSERT INTO "ledger_meta" VALUES('origin','privagg.ledger/hospital-a');
INSERT INTO "ledger_meta" VALUES('verifier','privagg.ledger/hospital-a+a1906ff4+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4');
CREATE TABLE ledger_nodes (
	level INTEGER NOT NULL, 
	idx BIGINT NOT NULL, 
	hash BLOB NOT NULL, 
	PRIMARY KEY (level, idx)
)
 WITHOUT ROWID

;
INSERT INTO "ledger_nodes" VALUES(0,0,X'1D5CCF20B6A881902EF9894CF4400029CE9027F060CC2880B8F38DB29369E1E0');
INSERT INTO "ledger_nodes" VALUES(0,1,X'9FD186F46AC93E94C04E08C03F274C4E125C650E80AB37071AEF26B02D3B8F6E');
INSERT INTO "ledger_nodes" VALUES(0,2,X'A4D4B32BE234EC533D6077F7E46884BBB66D316B8D7A949E30EAC1D86204CA16');
INSERT INTO "ledger_nodes" VALUES(0,3,X'A1DE5A6C6235BE94D4C7592E764A76C1FBE0BD551F92E1D0109E67DBAC1F3D4E');
INSERT INTO "ledger_nodes" VALUES(0,4,X'1B5DAF20BB251D9C769CA4371EC4DDFBB120FA804A76F60DE7882C6549F454DA');
INSERT INTO "ledger_nodes" VALUES(0,5,X'0CBD57D27ED85B7C2B26F125354A3C7141C7C5E08F8222CD9E54FD64A408844F');
INSERT INTO "ledger_nodes" VALUES(0,6,X'5FDF823E5210C4CFECE4CFCA13B4A1169726FCCE2EA785BF865633342046B6A2');
INSERT INTO "ledger_nodes" VALUES(0,7,X'A868EA19E1FA7FEFBBE372052603CE0FC2345577A6ECB400418256F0D19261D3');
INSERT INTO "ledger_nodes" VALUES(0,8,X'21F00B35844FD993FEC78B03FF69A8423AF5CED50CC265848F0A38FBB0F9F8BF');
INSERT INTO "ledger_nodes" VALUES(0,9,X'295AB8627341EB8749C5E86AD401D1A916922BAE99F52DEE8F225DA464C49788');
INSERT INTO "ledger_nodes" VALUES(1,0,X'1F79AC181A1F5B9788AF98679BE4961EFA3A9C9C7DF07D4B053DA1C9539F89F3');
INSERT INTO "ledger_nodes" VALUES(1,1,X'002EA814A2D7539911383D5765A4C7B5E2B89FBD2205384C9EB765F7D2EBA67A');
INSERT INTO "ledger_nodes" VALUES(1,2,X'11E5560BE68232F224305BAF6C99BA974E8820B68255D60735217BF6D184E62D');
INSERT INTO "ledger_nodes" VALUES(1,3,X'D24511626F4A32046709E68B2042D022CF4CD6DFCC2028BE084BFE211912C1B2');
INSERT INTO "ledger_nodes" VALUES(1,4,X'4A12E509E43821334D774E61E40BEC54214D78009339F2A7991BE06BC64597B8');
INSERT INTO "ledger_nodes" VALUES(2,0,X'89DC7A729F04B8314D2630527E936803859C5F680E6248C1931F9D15D2561FFF');
INSERT INTO "ledger_nodes" VALUES(2,1,X'9BB54268B18347B18A5C4CCE13C455EC24DDB25A50455DAADC833ED51217924A');
INSERT INTO "ledger_nodes" VALUES(3,0,X'98DC3BAF80AAFC26985DCB6FB722AD7C26FB248C2E241528B09495AECF8DF576');
CREATE TABLE ledger_tree (
	id INTEGER NOT NULL, 
	size BIGINT NOT NULL, 
	frontier BLOB NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "ledger_tree" VALUES(1,10,X'98DC3BAF80AAFC26985DCB6FB722AD7C26FB248C2E241528B09495AECF8DF57621F00B35844FD993FEC78B03FF69A8423AF5CED50CC265848F0A38FBB0F9F8BF');
CREATE TABLE ledger_uploads (
	subject TEXT NOT NULL, 
	run TEXT NOT NULL, 
	data BLOB NOT NULL, 
	PRIMARY KEY (subject)
);
INSERT INTO "ledger_uploads" VALUES('["run",0,0]','run',X'75706C6F61642030');
INSERT INTO "ledger_uploads" VALUES('["run",1,0]','run',X'75706C6F61642031');
CREATE INDEX ledger_entries_account ON ledger_entries (account, kind, idx);
CREATE TRIGGER ledger_entries_no_update BEFORE UPDATE ON ledger_entries BEGIN SELECT RAISE(ABORT, 'ledger_entries is append-only'); END;
CREATE TRIGGER ledger_entries_no_delete BEFORE DELETE ON ledger_entries BEGIN SELECT RAISE(ABORT, 'ledger_entries is append-only'); END;
CREATE TRIGGER ledger_nodes_no_update BEFORE UPDATE ON ledger_nodes BEGIN SELECT RAISE(ABORT, 'ledger_nodes is append-only'); END;
CREATE TRIGGER ledger_nodes_no_delete BEFORE DELETE ON ledger_nodes BEGIN SELECT RAISE(ABORT, 'ledger_nodes is append-only'); END;
CREATE TRIGGER ledger_checkpoints_no_update BEFORE UPDATE ON ledger_checkpoints BEGIN SELECT RAISE(ABORT, 'ledger_checkpoints is append-only'); END;
CREATE TRIGGER ledger_checkpoints_no_delete BEFORE DELETE ON ledger_checkpoints BEGIN SELECT RAISE(ABORT, 'ledger_checkpoints is append-only'); END;
CREATE TRIGGER ledger_uploads_no_update BEFORE UPDATE ON ledger_uploads BEGIN SELECT RAISE(ABORT, 'ledger_uploads is append-only'); END;
CREATE TRIGGER ledger_entries_in_order BEFORE INSERT ON ledger_entries WHEN NEW.idx <> (SELECT COALESCE(MAX(idx) + 1, 0) FROM ledger_entries) BEGIN SELECT RAISE(ABORT, 'ledger_entries is append-only: next position expected'); END;
CREATE TRIGGER ledger_checkpoints_in_order BEFORE INSERT ON ledger_checkpoints WHEN NEW.size <> (SELECT COALESCE(MAX(size) + 1, 1) FROM ledger_checkpoints) BEGIN SELECT RAISE(ABORT, 'ledger_checkpoints is append-only: next position expected'); END;
CREATE TRIGGER ledger_nodes_no_replace BEFORE INSERT ON ledger_nodes WHEN EXISTS (SELECT 1 FROM ledger_nodes WHERE level = NEW.level AND idx = NEW.idx) BEGIN SELECT RAISE(ABORT, 'ledger_nodes is append-only'); END;
COMMIT;
