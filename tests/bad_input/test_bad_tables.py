"""Reading a table: what cannot be read ends with the line or column at fault and its cure; odd but clear tables are read."""

from collections.abc import Callable

import pandas as pd
import pytest

from bad_input.cases import WEB_PAGE, case, of_group
from mriflow.tables.reader import pick_column, read_table
from test_ukbfetch import zipped


def table(content: str | bytes, name: str = "t.csv", **options) -> Callable:
    """Read a file of this content as a table."""

    def act(folder):
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return str(read_table(folder / name, **options).to_dict("list"))

    return act


def column(content: str, name: str) -> Callable:
    """Take the column `name` of a table."""

    def act(folder):
        (folder / "t.csv").write_text(content)
        return str(list(pick_column(read_table(folder / "t.csv"), name, folder / "t.csv")))

    return act


def excel(sheet=None, **sheets: list) -> Callable:
    """Read an Excel file with these sheets of rows."""

    def act(folder):
        with pd.ExcelWriter(folder / "t.xlsx") as book:
            for title, rows in sheets.items():
                pd.DataFrame(rows).to_excel(book, sheet_name=title, index=False, header=False)
        return str(read_table(folder / "t.xlsx", sheet).to_dict("list"))

    return act


TABLES = [
    case(
        lambda folder: str(read_table(folder / "t.csv")),
        "{tmp}/t.csv: no such table. Check the `table` of the dataset.",
        id="no such table",
    ),
    case(
        lambda folder: str(read_table(folder)),
        "{tmp}: a folder, not a table. Check the `table` of the dataset.",
        id="a folder for a table",
    ),
    case(
        table(""),
        "{tmp}/t.csv: the table is empty. Its first line has to name the columns, each further one is a row.",
        id="empty table",
    ),
    case(
        table("\n \n"),
        "{tmp}/t.csv: the table is empty. Its first line has to name the columns, each further one is a row.",
        id="table of blank lines",
    ),
    case(
        table("ID,AGE\n"),
        "{tmp}/t.csv: the table has no rows below line 1, which names the columns. Is it the whole table?",
        id="header alone",
    ),
    case(
        table("ID,AGE\n1,30\n", "t.pdf"),
        "{tmp}/t.pdf: a table must be .csv, .tsv, .xls, .xlsx, found .pdf. Save it as one.",
        id="another suffix",
    ),
    case(
        table("ID,AGE\n1,30\n", "table"),
        "{tmp}/table: a table must be .csv, .tsv, .xls, .xlsx, found no suffix. Save it as one.",
        id="no suffix",
    ),
    case(
        column("S1,F,30\nS2,M,40\n", "ID"),
        "{tmp}/t.csv: has no column 'ID'. It has: 'S1', 'F', '30'. The first line has to name the columns.",
        id="no header",
    ),
    case(
        column("# exported today\nID,AGE\n1,30\n", "ID"),
        "{tmp}/t.csv: line 2 has 2 cell(s), expected 1, for so many columns are named in line 1 (2 such "
        "line(s)). Name all columns there, leave no cell out, and put a text that holds the separator in quotes.",
        id="a remark above the header",
    ),
    case(
        column("ID,age\n1,30\n", "AGE"),
        "{tmp}/t.csv: has no column 'AGE'. Did you mean 'age'? It has: 'ID', 'age'. The first line has to name the columns.",
        id="column with other capitals",
    ),
    case(
        column("ID,AGES\n1,30\n", "AGE"),
        "{tmp}/t.csv: has no column 'AGE'. Did you mean 'AGES'? It has: 'ID', 'AGES'. The first line has to name the columns.",
        id="column with another name",
    ),
    case(
        table("ID,AGE,AGE\n1,30,31\n"),
        "{tmp}/t.csv: has two columns 'AGE'. Give one of them another name, or delete it.",
        id="column twice",
    ),
    case(
        table("ID,AGE, AGE\n1,30,31\n"),
        "{tmp}/t.csv: has two columns 'AGE'. Give one of them another name, or delete it.",
        id="column twice, with a blank",
    ),
    case(
        table("ID,AGE,SEX\n1,30,1\n2,40,2,7\n3,50,1\n4,60,1,,8\n"),
        "{tmp}/t.csv: line 3 has 4 cell(s), expected 3, for so many columns are named in line 1 (2 such "
        "line(s)). Name all columns there, leave no cell out, and put a text that holds the separator in quotes.",
        id="rows with more cells than the header",
    ),
    case(
        table("ID,AGE,SEX\n1,30,5,1\n2,40,5,2\n"),
        "{tmp}/t.csv: line 2 has 4 cell(s), expected 3, for so many columns are named in line 1 (2 such "
        "line(s)). Name all columns there, leave no cell out, and put a text that holds the separator in quotes.",
        id="decimal commas between commas",
    ),
    case(
        table("AGE,SEX\na,30,1\nb,40,2\n"),
        "{tmp}/t.csv: line 2 has 3 cell(s), expected 2, for so many columns are named in line 1 (2 such "
        "line(s)). Name all columns there, leave no cell out, and put a text that holds the separator in quotes.",
        id="header without the rows' names, as R writes it",
    ),
    case(
        table("ID,AGE,SEX\n1,30\n2,40,2\n"),
        "{tmp}/t.csv: line 2 has 2 cell(s), expected 3, for so many columns are named in line 1 (1 such "
        "line(s)). Name all columns there, leave no cell out, and put a text that holds the separator in quotes.",
        id="row with fewer cells",
    ),
    case(
        table("ID,AGE,SEX\n1,30,1\n2,4"),
        "{tmp}/t.csv: line 3 has 2 cell(s), expected 3, for so many columns are named in line 1 (1 such "
        "line(s)). It is the last line: was the file cut short? Name all columns there, leave no cell out, and "
        "put a text that holds the separator in quotes.",
        id="last line cut off",
    ),
    case(
        table("ID,AGE,SEX\n\n1,30,1\n\n2\n"),
        "{tmp}/t.csv: line 5 has 1 cell(s), expected 3, for so many columns are named in line 1 (1 such "
        "line(s)). It is the last line: was the file cut short? Name all columns there, leave no cell out, and "
        "put a text that holds the separator in quotes.",
        id="the line is that of the file, blank ones counted",
    ),
    case(
        table("ID,AGE,NOTE\n1,30,x\n2,40\n3\n", only=["ID", "AGE"]),
        "{tmp}/t.csv: line 4 has 1 cell(s), expected 3, for so many columns are named in line 1 (1 such "
        "line(s)). It is the last line: was the file cut short? Name all columns there, leave no cell out, and "
        "put a text that holds the separator in quotes.",
        id="row that ends before a column that is used",
    ),
    case(
        table("ID,AGE,NOTE,NOTE\n1,30,x,y\n2,40,,,5\n", only=["ID", "AGE"]),
        "{tmp}/t.csv: line 3 has 5 cell(s), expected 4, for so many columns are named in line 1 (1 such "
        "line(s)). It is the last line: was the file cut short? Name all columns there, leave no cell out, and "
        "put a text that holds the separator in quotes.",
        id="row that is too long, whatever columns are used",
    ),
    case(
        table("ID,AGE,NOTE,NOTE\n1,30,x,y\n", only=["ID", "AGE"]),
        "{'ID': ['1'], 'AGE': ['30']}",
        id="column twice that nobody uses",
    ),
    case(
        table("ID;AGE,y\n1;30,5\n2;40,5\n"),
        "{'ID': ['1', '2'], 'AGE,y': ['30,5', '40,5']}",
        id="semicolons that part as evenly as decimal commas",
    ),
    case(table("sep=|\r\nID|AGE\r\n1|30\r\n"), "{'ID': ['1'], 'AGE': ['30']}", id="Excel's line that tells the separator"),
    case(
        table("\ufeffsep=\t\nID\tAGE\n1\t30\t7\n"),
        "{tmp}/t.csv: line 3 has 3 cell(s), expected 2, for so many columns are named in line 2 (1 such "
        "line(s)). It is the last line: was the file cut short? Name all columns there, leave no cell out, and "
        "put a text that holds the separator in quotes.",
        id="lines are counted with that of the separator",
    ),
    case(
        table('ID, AGE, "NOTE"\n1, 30, "a, b"\n'),
        "{'ID': ['1'], 'AGE': ['30'], 'NOTE': ['a, b']}",
        id="quotation marks after a blank",
    ),
    case(
        table('ID,AGE\n"1,30\n2,40\n'),
        "{tmp}/t.csv: the row that begins in line 2 has a quotation mark out of place (unexpected end of data). "
        "Correct it, or save the table again.",
        id="quotation mark that is not closed",
    ),
    case(
        table('ID,AGE\n1,"30\n2,"40\n'),
        "{tmp}/t.csv: the row that begins in line 2 has a quotation mark out of place (',' expected after '\"'). "
        "Correct it, or save the table again.",
        id="quotation marks that swallow a line",
    ),
    case(table("ID\tAGE\n1\t30\n", "t.csv"), "{'ID': ['1'], 'AGE': ['30']}", id="tabs in a csv are read"),
    case(table("ID;AGE\n1;30,5\n", "t.csv"), "{'ID': ['1'], 'AGE': ['30,5']}", id="semicolons in a csv are read"),
    case(
        table("ID,AGE\n1,30\n", "t.tsv"),
        "{tmp}/t.tsv: its columns are parted by ',', those of a .tsv file by tabs. Rename it to .csv.",
        id="commas in a tsv",
    ),
    case(table("\ufeffID,AGE\n1,30\n"), "{'ID': ['1'], 'AGE': ['30']}", id="byte order mark is dropped"),
    case(
        table("ID,AGE\n1,30\n".encode("utf-16")),
        "{tmp}/t.csv: is no UTF-8 text (UTF-16, or no text at all). Save it again as 'CSV UTF-8'.",
        id="UTF-16",
    ),
    case(
        table("ID,AGE\n1,30\n".encode("utf-16-le")),
        "{tmp}/t.csv: is no UTF-8 text (UTF-16, or no text at all). Save it again as 'CSV UTF-8'.",
        id="UTF-16 without its mark",
    ),
    case(
        table("ID,SITE\n1,Köln\n2,Zürich\n".encode("latin-1")),
        "{tmp}/t.csv: line 2 is not UTF-8 text (found the byte 0xf6). Save it again as 'CSV UTF-8'.",
        id="Latin-1",
    ),
    case(
        table(WEB_PAGE),
        "{tmp}/t.csv: is a web page, not a table. If it was saved from a site, log in there and get it again; if "
        "a program wrote it as HTML, open it in a spreadsheet and save it as .xlsx or .csv.",
        id="web page called csv",
    ),
    case(
        table(WEB_PAGE, "t.xls"),
        "{tmp}/t.xls: is a web page, not a table. If it was saved from a site, log in there and get it again; if "
        "a program wrote it as HTML, open it in a spreadsheet and save it as .xlsx or .csv.",
        id="web page called xls",
    ),
    case(
        table("ID,AGE\n1,30\n", "t.xls"),
        "{tmp}/t.xls: is no Excel file (it begins with b'ID,AGE\\n1,30\\n'). If it is text, call it .csv; else "
        "open it in a spreadsheet and save it as .xlsx or .csv.",
        id="csv called xls",
    ),
    case(
        table("", "t.xlsx"),
        "{tmp}/t.xlsx: is no Excel file (it begins with b''). If it is text, call it .csv; else open it in a "
        "spreadsheet and save it as .xlsx or .csv.",
        id="empty xlsx",
    ),
    case(
        table(zipped({"a.txt": b"no sheet"}), "t.xlsx"),
        "{tmp}/t.xlsx: cannot be read as an Excel file (no workbook in it). Get it again, or open it in a "
        "spreadsheet and save it as .xlsx or .csv.",
        id="zip called xlsx",
    ),
    case(
        excel("Data", Sheet1=[["ID"], [1]], Notes=[["x"]]),
        "{tmp}/t.xlsx: has no sheet 'Data'. It has: 'Sheet1', 'Notes'. Correct the `sheet` of the dataset.",
        id="sheet that there is not",
    ),
    case(
        excel(Data=[["ID", "AGE", "AGE"], [1, 2, 3]]),
        "{tmp}/t.xlsx: has two columns 'AGE'. Give one of them another name, or delete it.",
        id="Excel column twice",
    ),
    case(
        excel(Data=[["ID", "AGE"]]),
        "{tmp}/t.xlsx: the table has no rows below line 1, which names the columns. Is it the whole table?",
        id="Excel header alone",
    ),
    case(
        column('"Table 1",\nID,AGE\n1,30\n', "ID"),
        "{tmp}/t.csv: has no column 'ID'. It has: 'Table 1'. The first line has to name the columns.",
        id="a title above the header",
    ),
]


@pytest.mark.parametrize(("act", "message"), of_group("table", TABLES))
def test_what_the_user_reads(act, message, shown):
    assert shown(act) == message
